/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the stages learn of a frame, and the cursor they read it with. A stage
 * returns GO_ON, or the reason that ends the frame's way.
 */
#ifndef IKEPULSE_PACKET_H
#define IKEPULSE_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "abi.h"

#define GO_ON REASON_UNDECIDED

/* RFC 4303 section 2: what every ESP packet begins with. */
struct esp_header {
	__be32 spi;
	__be32 seq;
};

enum kind {
	KIND_KEEPALIVE,
	KIND_ESP,
	KIND_IKE_500,
	KIND_IKE_NATT,
};

struct packet {
	void *next; /* the first byte not yet parsed */
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct udphdr *udp; /* NULL for bare ESP */
	struct esp_header *esp;
	__u32 length; /* of what is at next, by the IP header: frames are padded */
	enum kind kind;
};

/* Steps over size bytes; NULL if the frame has fewer. */
static __always_inline void *take(struct packet *p, __u32 size)
{
	void *at = p->next;

	if (at + size > p->end)
		return NULL;
	p->next = at + size;
	return at;
}

#endif
