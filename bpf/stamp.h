/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Stage 4: stamps. A stamp is stored only when the tick has moved: a busy SA
 * then costs one read of its line a packet, and CPUs that share the line do not
 * fight for it.
 */
#ifndef IKEPULSE_STAMP_H
#define IKEPULSE_STAMP_H

#include "lookup.h"

static __always_inline void stamp(__u32 *field, __u32 now)
{
	volatile __u32 *word = field;

	if (*word != now)
		*word = now;
}

/*
 * RFC 3948 section 4: it keeps the mapping, it is no evidence that anyone
 * lives. Returns how many the tuple has sent.
 */
static __always_inline __u32 stamp_keepalive(struct mapping *mapping, __u32 now)
{
	stamp(&mapping->keepalive_tick, now);
	return __sync_fetch_and_add(&mapping->keepalives, 1) + 1;
}

/* A second cache line and a locked add: for debugging and replay only. */
static __always_inline void account(const struct packet *p, __u32 slot)
{
	struct sa_entry *sa = find_sa(slot);

	if (!sa)
		return;
	__sync_fetch_and_add(&sa->packets, 1);
	sa->last_seq = bpf_ntohl(p->sa->seq);
}

#endif
