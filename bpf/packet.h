/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the stages learn of a frame, and the cursor they read it with. A stage
 * returns GO_ON, or the reason that ends the frame's way.
 */
#ifndef IKEPULSE_PACKET_H
#define IKEPULSE_PACKET_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "abi.h"

#define GO_ON REASON_UNDECIDED

/* RFC 4303 section 2: what every ESP packet begins with; AH has the same. */
struct sa_header {
	__be32 spi;
	__be32 seq;
};

/* RFC 4302 section 2, up to the ICV. */
struct ah_header {
	__u8 next;
	__u8 length;
	__be16 reserved;
	struct sa_header sa;
};

enum kind {
	KIND_KEEPALIVE,
	KIND_SA, /* ESP in UDP, ESP or AH */
	KIND_IKE,
};

/*
 * The flags are flags, not NULL pointers: the verifier does not know that a
 * pointer into a packet is never NULL, and would follow impossible ways.
 */
struct packet {
	struct xdp_md *ctx;
	void *next; /* the first byte not yet parsed */
	void *end;  /* of the first buffer */
	struct ethhdr *eth;
	union {
		struct iphdr *ip;
		struct ipv6hdr *ip6;
	};
	struct udphdr *udp;
	struct sa_header *sa;
	__u32 length;       /* of what is at next, by the IP header: frames are padded */
	__u8 protocol;      /* UDP, ESP or AH */
	bool ipv6;          /* ip6 counts, not ip */
	bool plain;         /* neither IP options nor extension headers */
	bool first;         /* first of several fragments: the UDP length says more than length */
	bool in_udp;        /* udp is set */
	enum kind kind;
	enum reason reason; /* IKE: why it passes; SA: the KNOWN of its three */
};

/* Steps over size bytes; NULL if the first buffer has fewer. */
static __always_inline void *take(struct packet *p, __u32 size)
{
	void *at = p->next;

	if (at + size > p->end)
		return NULL;
	p->next = at + size;
	return at;
}

#endif
