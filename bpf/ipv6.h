/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Stage 1, IPv6: a bounded chain of extension headers. AH ends it, since its
 * SA is the one that the packet arrived with, whatever is inside.
 */
#ifndef IKEPULSE_IPV6_H
#define IKEPULSE_IPV6_H

#include "arrived.h"
#include "ipv4.h"
#include "packet.h"

/*
 * RFC 8200 section 4.1 has each kind once, destination options twice: no
 * honest chain is longer than five.
 */
#define IPV6_EXTENSIONS 8

/*
 * Never reached by 8 headers of up to 2,048 bytes behind Ethernet and IP: it
 * tells the verifier, who forgets them, that offsets are small.
 */
#define OFFSET_LIMIT 0x7fff

#define IP6_MORE_FRAGMENTS 0x0001 /* RFC 8200 section 4.5 */
#define IP6_FRAGMENT_OFFSET 0xfff8

/* RFC 8200 sections 4.3 to 4.6: all begin with these, in units of 8 bytes. */
struct extension {
	__u8 next;
	__u8 length; /* without the first unit; reserved in a fragment header */
	union {
		__be16 fragment;
		struct {
			__u8 routing_type;
			__u8 segments_left;
		};
	};
	__be32 rest;
};

/* Loads data anew: 32 bits that were put by on the stack are no pointer any more. */
static __always_inline void *at_offset(struct xdp_md *ctx, __u32 offset)
{
	return (void *)(long)*(volatile __u32 *)&ctx->data + (offset & OFFSET_LIMIT);
}

static __always_inline bool is_extension(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_DSTOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
		return true;
	}
	return false;
}

/* How far the chain has been followed. */
struct chain {
	__u32 offset;   /* in the frame, of what is next */
	__u32 length;   /* of what is next, by the IP header */
	__u32 protocol; /* of what is next */
	__u32 first;    /* 1: first of several fragments */
};

/* RFC 8200 section 4.5. An atomic fragment (RFC 6946) is a whole datagram. */
static __always_inline enum reason chain_fragment(struct chain *chain, __be16 fragment)
{
	if (fragment & bpf_htons(IP6_FRAGMENT_OFFSET))
		return REASON_FRAG_LATER;
	if (fragment & bpf_htons(IP6_MORE_FRAGMENTS))
		chain->first = 1;
	return GO_ON;
}

/* Steps over one header. */
static __always_inline enum reason chain_step(struct chain *chain, const struct extension *extension)
{
	__u32 size = sizeof(*extension);
	enum reason reason = GO_ON;

	if (chain->protocol == IPPROTO_FRAGMENT)
		reason = chain_fragment(chain, extension->fragment);
	else
		size += extension->length * sizeof(*extension);
	if (chain->protocol == IPPROTO_ROUTING && extension->segments_left)
		return REASON_ROUTED;
	if (reason != GO_ON)
		return reason;
	if (chain->length < size)
		return REASON_IP_MALFORMED;
	chain->offset += size;
	chain->length -= size;
	chain->protocol = extension->next;
	return GO_ON;
}

/*
 * Follows the chain to its end. A function of its own, which the verifier
 * takes by itself and once: inlined, each length of the chain would be
 * followed through all the rest of the program.
 */
__noinline int ikepulse_chain(struct xdp_md *ctx, struct chain *chain)
{
	if (!chain)
		return REASON_UNDECIDED;
	for (int i = 0; i < IPV6_EXTENSIONS && is_extension(chain->protocol); i++) {
		struct extension *extension;
		enum reason reason;

		/* RFC 8200 section 4.1: only immediately after the IPv6 header. */
		if (chain->protocol == IPPROTO_HOPOPTS && i > 0)
			return REASON_EXTENSIONS;
		extension = at_offset(ctx, chain->offset);
		if ((void *)(extension + 1) > (void *)(long)ctx->data_end)
			return REASON_TRUNCATED;
		reason = chain_step(chain, extension);
		if (reason != GO_ON)
			return reason;
	}
	return is_extension(chain->protocol) ? REASON_EXTENSIONS : GO_ON;
}

static __always_inline enum reason parse_chain(struct packet *p)
{
	struct chain chain = {
		.offset = (long)p->next - (long)p->ctx->data,
		.length = p->length,
		.protocol = p->ip6->nexthdr,
	};
	enum reason reason = ikepulse_chain(p->ctx, &chain);

	if (reason != GO_ON)
		return reason;
	p->plain = false;
	p->first = chain.first;
	p->length = chain.length;
	p->next = at_offset(p->ctx, chain.offset);
	return parse_protocol(p, chain.protocol);
}

/* RFC 4291 section 2.5.5.2: an IPv4 node in an IPv6 socket, and on no wire. */
static __always_inline bool is_mapped(const struct in6_addr *address)
{
	const __be32 *words = address->in6_u.u6_addr32;

	return !(words[0] | words[1] | (words[2] ^ bpf_htonl(0xffff)));
}

/*
 * In the maps such an address is IPv4's. It must not pass for it: the tuple of
 * an IPv6 packet would be that of an SA over IPv4. The stack drops it, too.
 */
static __always_inline enum reason parse_ipv6(struct packet *p)
{
	enum reason reason;

	p->ip6 = take(p, sizeof(*p->ip6));
	if (!p->ip6)
		return REASON_TRUNCATED;
	if (p->ip6->version != 6)
		return REASON_IP_MALFORMED;
	p->ipv6 = true;
	if (is_mapped(&p->ip6->saddr) || is_mapped(&p->ip6->daddr))
		return REASON_IP_MALFORMED;
	p->length = bpf_ntohs(p->ip6->payload_len);
	reason = check_arrived(p);
	if (reason != GO_ON)
		return reason;
	if (is_extension(p->ip6->nexthdr))
		return parse_chain(p);
	p->plain = true;
	return parse_protocol(p, p->ip6->nexthdr);
}

#endif
