/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Stage 4: the clock, and stamps. A stamp is stored only when the tick has
 * moved: a busy SA then costs one read of its line a packet, and CPUs that
 * share the line do not fight for it.
 */
#ifndef IKEPULSE_STAMP_H
#define IKEPULSE_STAMP_H

#include "config.h"
#include "lookup.h"

/* 0 means never, so the one tick in 2^32 that would be 0 counts as the next. */
static __always_inline __u32 current_tick(void)
{
	__u32 tick = bpf_jiffies64() >> tick_shift;

	return tick ? tick : 1;
}

static __always_inline void stamp(__u32 *field, __u32 now)
{
	volatile __u32 *word = field;

	if (*word != now)
		*word = now;
}

/* RFC 3948 section 4: it keeps the mapping, it is no evidence that anyone lives. */
static __always_inline void stamp_keepalive(struct peer_entry *peer, __u32 now)
{
	stamp(&peer->keepalive_tick, now);
	__sync_fetch_and_add(&peer->keepalives, 1);
}

/* A second cache line and a locked add: for debugging and replay only. */
static __always_inline void account(const struct packet *p, __u32 spi)
{
	struct sa_entry *sa = find_sa(spi);

	if (!sa)
		return;
	__sync_fetch_and_add(&sa->packets, 1);
	sa->last_seq = bpf_ntohl(p->esp->seq);
}

#endif
