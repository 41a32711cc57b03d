/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * NAT keepalives: stamp, then answer or absorb. RFC 3948 section 4 says a
 * receiver SHOULD ignore them, so an answer must be harmless: only to the
 * exact tuple of an SA whose peer is the natted one, once an interval, within
 * a budget over all tuples. An answer looks like a keepalive, so two ends that
 * both answer come to rest by the interval alone: it must be longer than the
 * way there and back.
 */
#ifndef IKEPULSE_KEEPALIVE_H
#define IKEPULSE_KEEPALIVE_H

#include "event.h"
#include "reply.h"
#include "stamp.h"

/* Whether this frame is the one that is answered: GO_ON, or why it is not. */
static __always_inline enum reason may_answer(struct mapping *mapping, __u32 now)
{
	__u32 last = *(volatile __u32 *)&mapping->answer_tick;

	if (keepalive_mode != KEEPALIVE_ANSWER)
		return REASON_KEEPALIVE_ABSORBED;
	if (!(mapping->flags & PEER_NATTED))
		return REASON_KEEPALIVE_NOT_NATTED;
	if (!interval_over(last, now, answer_interval))
		return REASON_KEEPALIVE_LIMITED;
	if (!within_budget(BUDGET_ANSWERS, answer_budget, now))
		return REASON_KEEPALIVE_OVER_BUDGET;
	/* Of the CPUs that got here for one tuple, the one that swaps answers. */
	if (!__sync_bool_compare_and_swap(&mapping->answer_tick, last, now))
		return REASON_KEEPALIVE_LIMITED;
	__sync_fetch_and_add(&mapping->answers, 1);
	return GO_ON;
}

static __always_inline enum reason keepalive_stranger(const struct packet *p, __u32 now)
{
	/* A routed customer's keepalive: dropping it would break his mapping. */
	if (!to_us(p))
		return REASON_NOT_LOCAL;
	report_stranger(p, now);
	return stranger_pass ? REASON_STRANGER_PASSED : REASON_STRANGER_DROPPED;
}

/* The host's own conntrack forgets a mapping of which it sees no packet. */
static __always_inline bool let_through(__u32 nth)
{
	return keepalive_mode == KEEPALIVE_PASS || (pass_every && nth % pass_every == 0);
}

static __always_inline enum reason keepalive(const struct packet *p)
{
	struct mapping *mapping = find_mapping(p);
	__u32 now = current_tick();
	enum reason reason;

	if (!mapping)
		return keepalive_stranger(p, now);
	if (let_through(stamp_keepalive(mapping, now)))
		return REASON_KEEPALIVE_PASSED;
	reason = may_answer(mapping, now);
	if (reason != GO_ON)
		return reason;
	return reply(p);
}

#endif
