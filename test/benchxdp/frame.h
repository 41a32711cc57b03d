/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The frames of the bench: Ethernet, IPv4 without options, UDP to 4500. They
 * are written in pieces of the sizes that a parser reads: a load of what two
 * stores left would stall, and the stall be charged to the parser.
 */
#ifndef BENCHXDP_FRAME_H
#define BENCHXDP_FRAME_H

#include <stdbool.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include "state.h"

#define NATT_PORT 4500
#define VERSION_AND_LENGTH 0x45
#define IP_FRAGMENT 0x3fff /* RFC 791 section 3.1: more fragments, and the offset */

/* Where the headers are; all NULL if the frame ends before an SPI could. */
struct headers {
	struct ethhdr *eth;
	struct iphdr *ip;
	struct udphdr *udp;
	__be32 *spi; /* or a keepalive's one byte */
};

static __always_inline struct headers headers(struct xdp_md *ctx)
{
	struct headers h = {};

	h.eth = (void *)(long)ctx->data;
	h.ip = (void *)(h.eth + 1);
	h.udp = (void *)(h.ip + 1);
	h.spi = (void *)(h.udp + 1);
	if ((void *)(h.spi + 1) > (void *)(long)ctx->data_end)
		return (struct headers){};
	return h;
}

/* The SPI in host order, 0 if the frame is no ESP in UDP: the least parser. */
static __always_inline __u32 parse_esp(const struct headers *h)
{
	if (!h->eth || h->eth->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	if (*(__u8 *)h->ip != VERSION_AND_LENGTH || h->ip->protocol != IPPROTO_UDP)
		return 0;
	if (h->ip->frag_off & bpf_htons(IP_FRAGMENT) || h->udp->dest != bpf_htons(NATT_PORT))
		return 0;
	return bpf_ntohl(*h->spi);
}

#define PORTS_A_PEER 1024
#define FIRST_PORT 20000

/* A keepalive's headers behind Ethernet, as user space made them, in words. */
#define CHECKSUM_WORD 2 /* with TTL and protocol */
#define SADDR_WORD 3
#define PORTS_WORD 5
#define TEMPLATE_WORDS 7
volatile const __u32 template[TEMPLATE_WORDS] = {};

/* Both MAC addresses in words of two bytes. */
#define MAC_WORDS 6
volatile const __u16 template_macs[MAC_WORDS] = {};

/* The sum of the IPv4 header without source and checksum, not yet folded. */
volatile const __u32 template_sum = 0;

/* The first peer's address, host order; each has PORTS_A_PEER mappings. */
volatile const __u32 first_peer = 0;

/* RFC 1071; byte order does not matter to it. */
static __always_inline __u32 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	return ~sum & 0xffff;
}

/* Everything but the EtherType and the byte, which no program turns. */
static __always_inline bool write_keepalive(struct xdp_md *ctx, __u32 member)
{
	struct headers h = headers(ctx);
	__be32 saddr = bpf_htonl(first_peer + member / PORTS_A_PEER);
	__u16 *macs = (__u16 *)h.eth;
	__u32 *words = (__u32 *)h.ip;

	if (!h.eth)
		return false;
	for (int i = 0; i < MAC_WORDS; i++)
		macs[i] = template_macs[i];
	for (int i = 0; i < TEMPLATE_WORDS; i++)
		words[i] = template[i];
	words[CHECKSUM_WORD] = template[CHECKSUM_WORD] |
			       checksum(template_sum + (saddr & 0xffff) + (saddr >> 16)) << 16;
	words[SADDR_WORD] = saddr;
	words[PORTS_WORD] = template[PORTS_WORD] | bpf_htons(FIRST_PORT + member % PORTS_A_PEER);
	return true;
}

static __always_inline bool is_answer(struct xdp_md *ctx)
{
	struct headers h = headers(ctx);

	return h.eth && h.ip->protocol == IPPROTO_UDP && h.udp->source == bpf_htons(NATT_PORT);
}

#endif
