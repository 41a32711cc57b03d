/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Settings that never change after load: rodata, set by the loader. volatile,
 * or the compiler would build the defaults into the code.
 */
#ifndef IKEPULSE_CONFIG_H
#define IKEPULSE_CONFIG_H

#include "abi.h"

const struct constants constants = {};

/* enum keepalive. */
volatile const __u32 keepalive_mode = KEEPALIVE_ANSWER;

/* 1: keepalives to us from unregistered tuples go to the stack; 0: drop. */
volatile const __u32 stranger_pass = 0;

/* tick = u32(jiffies64 >> tick_shift): 1.02 s at HZ 250 with 8. */
volatile const __u32 tick_shift = 8;

/*
 * A tuple is answered again when its last answer is more than this many ticks
 * old. Ticks have an edge: only more than N of them surely span N whole ones.
 */
volatile const __u32 answer_interval = 10;

/* Answers a tick over all tuples and CPUs; 0: none. */
volatile const __u32 answer_budget = 10000;

/* Entries of hot minus one; a slot above it is nobody's. */
volatile const __u32 slot_mask = 2047;

/* RFC 3948: ESP, IKE and keepalives in UDP; host order. */
volatile const __u16 natt_port = 4500;

/* Every Nth keepalive of a registered tuple goes to the stack; 0: none. */
volatile const __u32 pass_every = 0;

/*
 * An SA's drift is reported again when the last report is more than this many
 * ticks old.
 */
volatile const __u32 drift_interval = 4;

/* Events about strangers a tick; 0: none. */
volatile const __u32 stranger_budget = 64;

/* 1: SPIs are another daemon's, and their slots stand in follow. */
volatile const __u32 foreign = 0;

/* 1: packets and last_seq are kept, at the price of a second cache line. */
volatile const __u32 account_every_packet = 0;

#endif
