/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Stage 1, IPv4: any options, whole datagrams and first fragments. */
#ifndef IKEPULSE_IPV4_H
#define IKEPULSE_IPV4_H

#include "arrived.h"
#include "packet.h"

#define IP_MORE_FRAGMENTS 0x2000 /* RFC 791 section 3.1 */
#define IP_FRAGMENT_OFFSET 0x1fff

/* Of the IP protocols only UDP, ESP and AH go on. */
static __always_inline enum reason parse_protocol(struct packet *p, __u8 protocol)
{
	p->protocol = protocol;
	switch (protocol) {
	case IPPROTO_UDP:
	case IPPROTO_ESP:
	case IPPROTO_AH:
		return GO_ON;
	}
	return REASON_NOT_IPSEC;
}

/* The datagram must hold its own header and must have arrived whole. */
static __always_inline enum reason parse_ipv4_length(struct packet *p, __u32 header)
{
	__u32 total = bpf_ntohs(p->ip->tot_len);

	if (total < header)
		return REASON_IP_MALFORMED;
	/* From its beginning: 6.1 does not see that what lies behind is not negative. */
	p->next = p->ip;
	if (!take(p, header))
		return REASON_TRUNCATED;
	p->length = total - header;
	return check_arrived(p);
}

static __always_inline enum reason parse_ipv4(struct packet *p)
{
	enum reason reason;
	__u32 header;

	p->ip = take(p, sizeof(*p->ip));
	if (!p->ip)
		return REASON_TRUNCATED;
	header = p->ip->ihl * 4;
	if (p->ip->version != 4 || header < sizeof(*p->ip))
		return REASON_IP_MALFORMED;
	if (p->ip->frag_off & bpf_htons(IP_FRAGMENT_OFFSET))
		return REASON_FRAG_LATER;

	reason = parse_protocol(p, p->ip->protocol);
	if (reason != GO_ON)
		return reason;
	p->plain = header == sizeof(*p->ip);
	p->first = p->ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS);
	return parse_ipv4_length(p, header);
}

#endif
