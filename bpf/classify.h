/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Stage 2: keepalive, SA or IKE. RFC 3948 section 2 tells them apart. A first
 * fragment may carry an SPI; it is never a keepalive, which is one byte.
 */
#ifndef IKEPULSE_CLASSIFY_H
#define IKEPULSE_CLASSIFY_H

#include "config.h"
#include "packet.h"

#define IKE_PORT 500         /* RFC 7296 section 2.23 */
#define KEEPALIVE_BYTE 0xff  /* RFC 3948 section 2.3 */
#define NON_ESP_MARKER 0     /* RFC 3948 section 2.2: where ESP has its SPI */
#define NON_ESP_MARKER_SIZE 4

static __always_inline enum reason classified(struct packet *p, enum kind kind, enum reason reason)
{
	p->kind = kind;
	p->reason = reason;
	return GO_ON;
}

static __always_inline enum reason classify_one_byte(struct packet *p)
{
	__u8 *byte = take(p, 1);

	if (!byte)
		return REASON_TRUNCATED;
	if (*byte != KEEPALIVE_BYTE)
		return REASON_NATT_SHORT;
	if (!p->plain)
		return REASON_ODD_KEEPALIVE;
	/*
	 * RFC 1122 section 3.3.6: never act on unicast in a link-layer multicast.
	 * Nor is a group a sender, IEEE 802.3 section 3.2.3: all of it would hear us.
	 */
	if ((p->eth->h_dest[0] | p->eth->h_source[0]) & 1)
		return REASON_GROUP_MAC;
	return classified(p, KIND_KEEPALIVE, GO_ON);
}

static __always_inline enum reason classify_natt_short(const struct packet *p)
{
	return p->first ? REASON_FRAG_NATT_SHORT : REASON_NATT_SHORT;
}

static __always_inline enum reason classify_natt(struct packet *p)
{
	__be32 *marker = p->next;

	if (p->length == 1 && !p->first)
		return classify_one_byte(p);
	if (p->length < NON_ESP_MARKER_SIZE)
		return classify_natt_short(p);
	if ((void *)(marker + 1) > p->end)
		return REASON_TRUNCATED;
	if (*marker == NON_ESP_MARKER)
		return classified(p, KIND_IKE, p->first ? REASON_FRAG_IKE_NATT : REASON_IKE_NATT);
	if (p->length < sizeof(*p->sa))
		return classify_natt_short(p);
	p->sa = take(p, sizeof(*p->sa));
	if (!p->sa)
		return REASON_TRUNCATED;
	return classified(p, KIND_SA, p->first ? REASON_FRAG_ESP_UDP_KNOWN : REASON_ESP_UDP_KNOWN);
}

/* What is left of our ports when it does not come to them: answers of others. */
static __always_inline enum reason classify_elsewhere(const struct packet *p)
{
	__u16 port = bpf_ntohs(p->udp->source);

	if (port != natt_port && port != IKE_PORT)
		return REASON_UDP_OTHER;
	if (p->first)
		return REASON_FRAG_FROM_IKE;
	return port == IKE_PORT ? REASON_FROM_500 : REASON_FROM_NATT;
}

/* The UDP length of a first fragment is the whole datagram's. */
static __always_inline bool udp_length_lies(const struct packet *p)
{
	__u32 length = bpf_ntohs(p->udp->len);

	return p->first ? length <= p->length : length != p->length;
}

static __always_inline enum reason classify_udp(struct packet *p)
{
	__u16 port;

	if (p->length < sizeof(*p->udp))
		return REASON_UDP_LENGTH;
	p->udp = take(p, sizeof(*p->udp));
	if (!p->udp)
		return REASON_TRUNCATED;
	p->in_udp = true;

	port = bpf_ntohs(p->udp->dest);
	if (port == natt_port) {
		/* One of the two lengths lies, and nothing says which. */
		if (udp_length_lies(p))
			return REASON_UDP_LENGTH;
		p->length -= sizeof(*p->udp);
		return classify_natt(p);
	}
	if (port != IKE_PORT)
		return classify_elsewhere(p);
	if (p->first)
		return classified(p, KIND_IKE, REASON_FRAG_IKE_500);
	if (udp_length_lies(p))
		return REASON_IKE_LENGTH;
	return classified(p, KIND_IKE, REASON_IKE_500);
}

static __always_inline enum reason classify_esp(struct packet *p)
{
	if (p->length < sizeof(*p->sa))
		return REASON_ESP_SHORT;
	p->sa = take(p, sizeof(*p->sa));
	if (!p->sa)
		return REASON_TRUNCATED;
	return classified(p, KIND_SA, REASON_ESP_KNOWN);
}

/*
 * RFC 4302 section 2.2: in words of 32 bits, minus 2. A fragment need not have
 * all of it.
 */
static __always_inline bool ah_length_lies(const struct packet *p, const struct ah_header *ah)
{
	__u32 size = (ah->length + 2) * sizeof(__u32);

	return size < sizeof(*ah) || (size > p->length && !p->first);
}

static __always_inline enum reason classify_ah(struct packet *p)
{
	struct ah_header *ah;

	if (p->length < sizeof(*ah))
		return REASON_AH_SHORT;
	ah = take(p, sizeof(*ah));
	if (!ah)
		return REASON_TRUNCATED;
	if (ah_length_lies(p, ah))
		return REASON_AH_SHORT;
	p->sa = &ah->sa;
	return classified(p, KIND_SA, REASON_AH_KNOWN);
}

static __always_inline enum reason classify(struct packet *p)
{
	switch (p->protocol) {
	case IPPROTO_UDP:
		return classify_udp(p);
	case IPPROTO_ESP:
		return classify_esp(p);
	}
	return classify_ah(p);
}

#endif
