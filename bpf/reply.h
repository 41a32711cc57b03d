/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Stage 5: turn the frame round, in place. From here on the frame is mangled:
 * a step that can fail must end in ABORTED, never in PASS. None here can; all
 * that is written was bounds-checked by the stages before. Only a plain
 * datagram gets here: there is nothing between the IP and the UDP header.
 */
#ifndef IKEPULSE_REPLY_H
#define IKEPULSE_REPLY_H

#include "checksum.h"
#include "packet.h"

#define REPLY_TTL 64          /* RFC 1700: the recommended default */
#define IP_DONT_FRAGMENT 0x4000

/* VLAN tags stay: the answer goes back the way it came. */
static __always_inline void turn_ethernet(struct ethhdr *eth)
{
	__u8 sender[ETH_ALEN];

	__builtin_memcpy(sender, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, sender, ETH_ALEN);
}

/* RFC 6864 section 4.1: an atomic datagram, whose ID says nothing. */
static __always_inline void turn_ipv4(struct iphdr *ip)
{
	__be32 sender = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = sender;
	ip->tos = 0;
	ip->id = 0;
	ip->frag_off = bpf_htons(IP_DONT_FRAGMENT);
	ip->ttl = REPLY_TTL;
	ip->check = ipv4_checksum(ip);
}

/* RFC 6437 section 3: the label was the sender's, for his direction. */
static __always_inline void turn_ipv6(struct ipv6hdr *ip)
{
	struct in6_addr sender = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = sender;
	ip->priority = 0;
	__builtin_memset(ip->flow_lbl, 0, sizeof(ip->flow_lbl));
	ip->hop_limit = REPLY_TTL;
}

static __always_inline void turn_ports(struct udphdr *udp)
{
	__be16 sender = udp->source;

	udp->source = udp->dest;
	udp->dest = sender;
}

/*
 * The checksum received may be half a sum that a veth or virtio sender left to
 * its hardware. RFC 3948 section 2.3: it SHOULD be 0 over IPv4; RFC 8200
 * section 8.1: it must not be over IPv6.
 */
static __always_inline enum reason reply(const struct packet *p)
{
	turn_ethernet(p->eth);
	turn_ports(p->udp);
	if (p->ipv6) {
		turn_ipv6(p->ip6);
		p->udp->check = keepalive_checksum(p->ip6, p->udp);
	} else {
		turn_ipv4(p->ip);
		p->udp->check = 0;
	}
	return REASON_KEEPALIVE_ANSWERED;
}

#endif
