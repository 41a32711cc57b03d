/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * NAT keepalives: stamp, then answer or absorb. RFC 3948 section 4 says a
 * receiver SHOULD ignore them, so an answer must be harmless: only to the
 * exact tuple of an SA whose peer is the natted one, once an interval, within
 * a budget over all tuples.
 */
#ifndef IKEPULSE_KEEPALIVE_H
#define IKEPULSE_KEEPALIVE_H

#include "reply.h"
#include "stamp.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "budget.count is the low half of the word");

/*
 * Tick then was before now. Not merely another one: a CPU may have read its
 * clock just before another moved the tick on, and must not move it back.
 */
static __always_inline bool before(__u32 then, __u32 now)
{
	return !then || (__s32)(now - then) > 0;
}

/* Wait-free: the first CPU of a tick starts the count, the others add to it. */
static __always_inline bool within_budget(__u32 now)
{
	__u32 zero = 0;
	__u64 *word = bpf_map_lookup_elem(&ikepulse_budget, &zero);
	__u64 seen;

	if (!word || !answer_budget)
		return false;
	seen = *(volatile __u64 *)word;
	if (before(seen >> 32, now) && __sync_bool_compare_and_swap(word, seen, (__u64)now << 32 | 1))
		return true;
	/* Looking first keeps a flood from running the count into the tick. */
	if (*(volatile __u32 *)word >= answer_budget)
		return false;
	return (__u32)__sync_fetch_and_add(word, 1) < answer_budget;
}

static __always_inline bool interval_over(__u32 last, __u32 now)
{
	return before(last, now) && (!last || now - last > answer_interval);
}

/* Whether this frame is the one that is answered: GO_ON, or why it is not. */
static __always_inline enum reason may_answer(struct peer_entry *peer, __u32 now)
{
	__u32 last = *(volatile __u32 *)&peer->answer_tick;

	if (keepalive_mode == KEEPALIVE_PASS)
		return REASON_KEEPALIVE_PASSED;
	if (keepalive_mode != KEEPALIVE_ANSWER)
		return REASON_KEEPALIVE_ABSORBED;
	if (!(peer->flags & PEER_NATTED))
		return REASON_KEEPALIVE_NOT_NATTED;
	if (!interval_over(last, now))
		return REASON_KEEPALIVE_LIMITED;
	if (!within_budget(now))
		return REASON_KEEPALIVE_OVER_BUDGET;
	/* Of the CPUs that got here for one tuple, the one that swaps answers. */
	if (!__sync_bool_compare_and_swap(&peer->answer_tick, last, now))
		return REASON_KEEPALIVE_LIMITED;
	__sync_fetch_and_add(&peer->answers, 1);
	return GO_ON;
}

static __always_inline enum reason keepalive_stranger(const struct packet *p)
{
	/* A routed customer's keepalive: dropping it would break his mapping. */
	if (!to_us(p))
		return REASON_NOT_LOCAL;
	return stranger_pass ? REASON_STRANGER_PASSED : REASON_STRANGER_DROPPED;
}

static __always_inline enum reason keepalive(const struct packet *p)
{
	struct peer_entry *peer = find_peer(p);
	__u32 now = current_tick();
	enum reason reason;

	if (!peer)
		return keepalive_stranger(p);
	stamp_keepalive(peer, now);
	reason = may_answer(peer, now);
	if (reason != GO_ON)
		return reason;
	return reply_ipv4(p);
}

#endif
