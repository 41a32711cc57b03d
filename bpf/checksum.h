/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* RFC 1071, over a few fixed words: nothing of the sender's sum is kept. */
#ifndef IKEPULSE_CHECKSUM_H
#define IKEPULSE_CHECKSUM_H

#include "packet.h"

#define IPV4_HEADER_WORDS 10    /* of 16 bits, without options */
#define IPV6_ADDRESSES_WORDS 16 /* of both */

static __always_inline __sum16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	return (__sum16)~sum;
}

static __always_inline __u32 add_words(__u32 sum, const void *words, int count)
{
	const __u16 *word = words;

	for (int i = 0; i < count; i++)
		sum += word[i];
	return sum;
}

static __always_inline __sum16 ipv4_checksum(struct iphdr *ip)
{
	ip->check = 0;
	return fold(add_words(0, ip, IPV4_HEADER_WORDS));
}

/*
 * UDP over IPv6, RFC 8200 section 8.1: pseudo-header, UDP header and the one
 * byte of a keepalive, padded with a zero.
 */
static __always_inline __sum16 keepalive_checksum(const struct ipv6hdr *ip, const struct udphdr *udp)
{
	__u32 sum = add_words(0, &ip->saddr, IPV6_ADDRESSES_WORDS);
	__sum16 check;

	sum += udp->len + bpf_htons(IPPROTO_UDP);
	sum += udp->source + udp->dest + udp->len + bpf_htons(0xff00);
	check = fold(sum);
	/* RFC 768: 0 would mean that there is none. */
	return check ? check : 0xffff;
}

#endif
