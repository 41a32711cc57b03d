/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Stage 5: turn the frame round, in place. From here on the frame is mangled:
 * a step that can fail must end in ABORTED, never in PASS. None here can; all
 * that is written was bounds-checked by the stages before.
 */
#ifndef IKEPULSE_REPLY_H
#define IKEPULSE_REPLY_H

#include "packet.h"

#define REPLY_TTL 64          /* RFC 1700: the recommended default */
#define IP_DONT_FRAGMENT 0x4000
#define IPV4_HEADER_WORDS 10  /* of 16 bits, without options */

/* RFC 1071, over the whole header: nothing of the sender's sum is kept. */
static __always_inline __sum16 ipv4_checksum(struct iphdr *ip)
{
	__u16 *words = (__u16 *)ip;
	__u32 sum = 0;

	ip->check = 0;
	for (int i = 0; i < IPV4_HEADER_WORDS; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	return (__sum16)~sum;
}

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

/*
 * RFC 3948 section 2.3: the checksum SHOULD be 0 over IPv4. The one received
 * may be half a sum that a veth or virtio sender left to its hardware.
 */
static __always_inline void turn_udp(struct udphdr *udp)
{
	__be16 sender = udp->source;

	udp->source = udp->dest;
	udp->dest = sender;
	udp->check = 0;
}

static __always_inline enum reason reply_ipv4(const struct packet *p)
{
	turn_ethernet(p->eth);
	turn_ipv4(p->ip);
	turn_udp(p->udp);
	return REASON_KEEPALIVE_ANSWERED;
}

#endif
