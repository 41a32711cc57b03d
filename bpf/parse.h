/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Stage 1: Ethernet and IP. Nothing here changes the frame: failures PASS. */
#ifndef IKEPULSE_PARSE_H
#define IKEPULSE_PARSE_H

#include "packet.h"

#define IP_MORE_FRAGMENTS 0x2000 /* RFC 791 section 3.1 */
#define IP_FRAGMENT_OFFSET 0x1fff
#define IP_WORDS_WITHOUT_OPTIONS 5

static __always_inline enum reason parse_ethernet(struct packet *p)
{
	p->eth = take(p, sizeof(*p->eth));
	if (!p->eth)
		return REASON_TRUNCATED;

	switch (p->eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return GO_ON;
	case bpf_htons(ETH_P_IPV6):
		return REASON_IPV6;
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return REASON_VLAN;
	}
	return REASON_NOT_IP;
}

/* Of the IP protocols only UDP and ESP go on. */
static __always_inline enum reason parse_protocol(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_UDP:
	case IPPROTO_ESP:
		return GO_ON;
	case IPPROTO_AH:
		return REASON_AH;
	}
	return REASON_NOT_IPSEC;
}

/* Only whole datagrams go on: a fragment's lengths and ports prove nothing. */
static __always_inline enum reason parse_fragment(__be16 fragment)
{
	if (fragment & bpf_htons(IP_FRAGMENT_OFFSET))
		return REASON_FRAG_LATER;
	if (fragment & bpf_htons(IP_MORE_FRAGMENTS))
		return REASON_FRAG_FIRST;
	return GO_ON;
}

/* The datagram must hold its own header and must have arrived whole. */
static __always_inline enum reason parse_ipv4_length(struct packet *p)
{
	__u32 total = bpf_ntohs(p->ip->tot_len);

	if (total < sizeof(*p->ip))
		return REASON_IP_MALFORMED;
	p->length = total - sizeof(*p->ip);
	if (p->next + p->length > p->end)
		return REASON_TRUNCATED;
	return GO_ON;
}

static __always_inline enum reason parse_ipv4(struct packet *p)
{
	enum reason reason;

	p->ip = take(p, sizeof(*p->ip));
	if (!p->ip)
		return REASON_TRUNCATED;
	if (p->ip->version != 4 || p->ip->ihl < IP_WORDS_WITHOUT_OPTIONS)
		return REASON_IP_MALFORMED;

	reason = parse_protocol(p->ip->protocol);
	if (reason != GO_ON)
		return reason;
	if (p->ip->ihl > IP_WORDS_WITHOUT_OPTIONS)
		return REASON_IP_OPTIONS;
	reason = parse_fragment(p->ip->frag_off);
	if (reason != GO_ON)
		return reason;
	return parse_ipv4_length(p);
}

static __always_inline enum reason parse(struct packet *p, struct xdp_md *ctx)
{
	enum reason reason;

	p->next = (void *)(long)ctx->data;
	p->end = (void *)(long)ctx->data_end;

	reason = parse_ethernet(p);
	if (reason != GO_ON)
		return reason;
	return parse_ipv4(p);
}

#endif
