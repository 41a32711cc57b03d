/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the programs of one run share, and what one arm sets before loading. */
#ifndef BENCHXDP_STATE_H
#define BENCHXDP_STATE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* In one cache line, which the mutators touch anyway: the product reads tick. */
struct shared {
	__u64 lcg;
	__u64 tick;   /* frames that a mutator has handed on; the clock of "new tick" arms */
	__u64 missed; /* frames that did not take the way an arm measures */
	__u64 zero;   /* always, but no compiler and no CPU knows */
	__u64 sunk;   /* frames that arrived at the other end of the link, */
	__u64 turned; /* and how many of them were answers */
	__u64 spare[2];
} __attribute__((aligned(64)));

struct shared state;

/* SPIs, or tuples, in play. */
volatile const __u32 members = 1;

/* 1: Zipf with exponent 1 instead of uniform. */
volatile const __u32 zipf = 0;

/* The binary logarithm of members, with ZIPF_FRACTION bits after the point. */
volatile const __u32 zipf_span = 0;

/* Entries of the arrays by slot, minus one. */
volatile const __u32 slot_mask = 0;

/* 1: the next SPI depends on the entry of the last one. */
volatile const __u32 chained = 0;

static __always_inline int missed(void)
{
	state.missed++;
	return XDP_ABORTED;
}

#endif
