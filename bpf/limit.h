/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The clock, and what may happen how often by it. */
#ifndef IKEPULSE_LIMIT_H
#define IKEPULSE_LIMIT_H

#include <stdbool.h>
#include "config.h"
#include "maps.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "budget.count is the low half of the word");

/* 0 means never, so the one tick in 2^32 that would be 0 counts as the next. */
static __always_inline __u32 current_tick(void)
{
	__u32 tick = bpf_jiffies64() >> tick_shift;

	return tick ? tick : 1;
}

/*
 * Tick then was before now. Not merely another one: a CPU may have read its
 * clock just before another moved the tick on, and must not move it back.
 */
static __always_inline bool before(__u32 then, __u32 now)
{
	return !then || (__s32)(now - then) > 0;
}

/* Ticks have an edge: only more than interval of them surely span as many. */
static __always_inline bool interval_over(__u32 last, __u32 now, __u32 interval)
{
	return before(last, now) && (!last || now - last > interval);
}

/* Wait-free: the first CPU of a tick starts the count, the others add to it. */
static __always_inline bool within_budget(enum budget_index index, __u32 limit, __u32 now)
{
	__u32 key = index;
	__u64 *word = bpf_map_lookup_elem(&ikepulse_budget, &key);
	__u64 seen;

	if (!word || !limit)
		return false;
	seen = *(volatile __u64 *)word;
	if (before(seen >> 32, now) && __sync_bool_compare_and_swap(word, seen, (__u64)now << 32 | 1))
		return true;
	/* Looking first keeps a flood from running the count into the tick. */
	if (*(volatile __u32 *)word >= limit)
		return false;
	return (__u32)__sync_fetch_and_add(word, 1) < limit;
}

#endif
