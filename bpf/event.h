/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Events for the daemon. Each kind is limited before it gets here: a sender
 * must not fill the ring, nor make us read the clock, as often as he likes.
 */
#ifndef IKEPULSE_EVENT_H
#define IKEPULSE_EVENT_H

#include "limit.h"
#include "lookup.h"

/* Per CPU, so a plain add is enough. */
static __always_inline void count_event(bool written)
{
	__u32 zero = 0;
	struct stats *stats = bpf_map_lookup_elem(&ikepulse_stats, &zero);

	if (!stats)
		return;
	if (written)
		stats->events++;
	else
		stats->events_lost++;
}

/* NULL, and counted, if the ring is full; else it must be submitted. */
static __always_inline struct event *new_event(enum event_kind kind, const struct packet *p)
{
	struct event *event = bpf_ringbuf_reserve(&ikepulse_events, sizeof(*event), 0);

	count_event(event);
	if (!event)
		return NULL;
	__builtin_memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->boottime_ns = bpf_ktime_get_boot_ns();
	get_tuple(p, &event->from);
	return event;
}

/*
 * Once an interval of the SA: of the CPUs that get here together, the one that
 * swaps reports. A report that is lost leaves moved_tick for whoever looks.
 */
static __always_inline void report_drift(const struct packet *p, __u32 spi, struct sa_entry *sa, __u32 now)
{
	__u32 last = *(volatile __u32 *)&sa->moved_tick;
	struct event *event;

	if (!interval_over(last, now, drift_interval))
		return;
	if (!__sync_bool_compare_and_swap(&sa->moved_tick, last, now))
		return;
	event = new_event(EVENT_DRIFT, p);
	if (!event)
		return;
	event->spi = spi;
	__builtin_memcpy(event->before.local, sa->local, sizeof(sa->local));
	__builtin_memcpy(event->before.peer, sa->peer, sizeof(sa->peer));
	event->before.local_port = sa->local_port;
	event->before.peer_port = sa->peer_port;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void report_stranger(const struct packet *p, __u32 now)
{
	struct event *event;

	if (!within_budget(BUDGET_STRANGERS, stranger_budget, now))
		return;
	event = new_event(EVENT_STRANGER, p);
	if (event)
		bpf_ringbuf_submit(event, 0);
}

#endif
