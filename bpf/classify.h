/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Stage 2: keepalive, ESP or IKE. RFC 3948 section 2 tells them apart. */
#ifndef IKEPULSE_CLASSIFY_H
#define IKEPULSE_CLASSIFY_H

#include "config.h"
#include "packet.h"

#define IKE_PORT 500         /* RFC 7296 section 2.23 */
#define KEEPALIVE_BYTE 0xff  /* RFC 3948 section 2.3 */
#define NON_ESP_MARKER 0     /* RFC 3948 section 2.2: where ESP has its SPI */
#define NON_ESP_MARKER_SIZE 4

static __always_inline enum reason classify_one_byte(struct packet *p)
{
	__u8 *byte = take(p, 1);

	if (!byte)
		return REASON_TRUNCATED;
	if (*byte != KEEPALIVE_BYTE)
		return REASON_NATT_SHORT;
	/* RFC 1122 section 3.3.6: never act on unicast in a link-layer multicast. */
	if (p->eth->h_dest[0] & 1)
		return REASON_GROUP_MAC;
	p->kind = KIND_KEEPALIVE;
	return GO_ON;
}

static __always_inline enum reason classify_natt(struct packet *p)
{
	__be32 *first = p->next;

	if (p->length == 1)
		return classify_one_byte(p);
	if (p->length < NON_ESP_MARKER_SIZE)
		return REASON_NATT_SHORT;
	if ((void *)(first + 1) > p->end)
		return REASON_TRUNCATED;
	if (*first == NON_ESP_MARKER) {
		p->kind = KIND_IKE_NATT;
		return GO_ON;
	}
	if (p->length < sizeof(*p->esp))
		return REASON_NATT_SHORT;
	p->esp = take(p, sizeof(*p->esp));
	if (!p->esp)
		return REASON_TRUNCATED;
	p->kind = KIND_ESP;
	return GO_ON;
}

static __always_inline enum reason classify_udp(struct packet *p)
{
	__u16 port;

	if (p->length < sizeof(*p->udp))
		return REASON_UDP_LENGTH;
	p->udp = take(p, sizeof(*p->udp));
	if (!p->udp)
		return REASON_TRUNCATED;

	port = bpf_ntohs(p->udp->dest);
	if (port != natt_port && port != IKE_PORT)
		return REASON_UDP_OTHER;
	/* One of the two lengths lies, and nothing says which. */
	if (bpf_ntohs(p->udp->len) != p->length)
		return REASON_UDP_LENGTH;
	p->length -= sizeof(*p->udp);

	if (port == natt_port)
		return classify_natt(p);
	p->kind = KIND_IKE_500;
	return GO_ON;
}

static __always_inline enum reason classify_esp(struct packet *p)
{
	if (p->length < sizeof(*p->esp))
		return REASON_ESP_SHORT;
	p->esp = take(p, sizeof(*p->esp));
	if (!p->esp)
		return REASON_TRUNCATED;
	p->kind = KIND_ESP;
	return GO_ON;
}

static __always_inline enum reason classify(struct packet *p)
{
	if (p->ip->protocol == IPPROTO_UDP)
		return classify_udp(p);
	return classify_esp(p);
}

#endif
