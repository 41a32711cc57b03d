/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ESP, bare or in UDP, and AH: stamp, count, and always PASS. Nothing here is
 * authenticated: a stamp is a hint that orders the daemon's work.
 */
#ifndef IKEPULSE_SA_H
#define IKEPULSE_SA_H

#include "event.h"
#include "stamp.h"

/* The three ways out, by the first of them. */
#define MOVED 1
#define UNKNOWN 2

/* A NAT rebinding, or a sender who only knows the SPI: the daemon will tell. */
static __always_inline enum reason sa_moved(const struct packet *p, __u32 spi, __u32 slot, __u32 now)
{
	struct sa_entry *sa = find_sa(slot);

	if (sa)
		report_drift(p, spi, sa, now);
	return p->reason + MOVED;
}

static __always_inline enum reason sa(const struct packet *p)
{
	__u32 spi = bpf_ntohl(p->sa->spi);
	__u32 slot = 0;
	struct hot_entry *hot = find_hot(p, spi, &slot);
	__u32 now = current_tick();
	bool moved = false;

	/* Transit ESP is none of our business, and must not raise our alarms. */
	if (!hot)
		return to_us(p) ? p->reason + UNKNOWN : REASON_NOT_LOCAL;
	if (hot->tuple_hash != packet_tuple_hash(p)) {
		/* Cold. Transit that happens to carry one of our SPIs ends here. */
		if (!to_us(p))
			return REASON_NOT_LOCAL;
		moved = hot->tuple_hash != 0;
	}

	stamp(&hot->seen, now);
	if (account_every_packet)
		account(p, slot);
	if (moved)
		return sa_moved(p, spi, slot, now);
	return p->reason;
}

#endif
