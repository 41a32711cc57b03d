/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ESP, bare or in UDP: stamp, count, and always PASS. Nothing here is
 * authenticated: a stamp is a hint that orders the daemon's work.
 */
#ifndef IKEPULSE_ESP_H
#define IKEPULSE_ESP_H

#include "stamp.h"

static __always_inline enum reason esp_unknown(const struct packet *p)
{
	/* Transit ESP is none of our business, and must not raise our alarms. */
	if (!to_us(p))
		return REASON_NOT_LOCAL;
	return p->udp ? REASON_ESP_UDP_UNKNOWN : REASON_ESP_UNKNOWN;
}

/* A NAT rebinding, or a sender who only knows the SPI: the daemon will tell. */
static __always_inline enum reason esp_moved(const struct packet *p, __u32 spi, __u32 now)
{
	struct sa_entry *sa = find_sa(spi);

	if (sa)
		stamp(&sa->moved_tick, now);
	return p->udp ? REASON_ESP_UDP_MOVED : REASON_ESP_MOVED;
}

static __always_inline enum reason esp(const struct packet *p)
{
	__u32 spi = bpf_ntohl(p->esp->spi);
	struct hot_entry *hot = find_hot(spi);
	__u32 now = current_tick();
	bool moved = false;

	if (!hot)
		return esp_unknown(p);
	if (hot->tuple_hash != packet_tuple_hash(p)) {
		/* Cold. Transit that happens to carry one of our SPIs ends here. */
		if (!to_us(p))
			return REASON_NOT_LOCAL;
		moved = hot->tuple_hash != 0;
	}

	stamp(&hot->seen, now);
	if (account_every_packet)
		account(p, spi);
	if (moved)
		return esp_moved(p, spi, now);
	return p->udp ? REASON_ESP_UDP_KNOWN : REASON_ESP_KNOWN;
}

#endif
