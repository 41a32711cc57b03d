/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Stage 3: what the maps know of the packet's addresses and of its SPI. */
#ifndef IKEPULSE_LOOKUP_H
#define IKEPULSE_LOOKUP_H

#include <stdbool.h>
#include "config.h"
#include "hash.h"
#include "maps.h"
#include "packet.h"

/* IPv4 as ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2. */
static __always_inline void map_ipv4(__u8 *address, __be32 ipv4)
{
	__be32 *words = (__be32 *)address;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = ipv4;
}

/* A hash lookup: for what is rare, or would be dropped, or raises an alarm. */
static __always_inline bool to_us(const struct packet *p)
{
	struct local_key key;

	map_ipv4(key.address, p->ip->daddr);
	return bpf_map_lookup_elem(&ikepulse_locals, &key);
}

/* A registered tuple's local address is ours by definition. */
static __always_inline struct peer_entry *find_peer(const struct packet *p)
{
	struct peer_key key;

	map_ipv4(key.local, p->ip->daddr);
	map_ipv4(key.peer, p->ip->saddr);
	key.local_port = bpf_ntohs(p->udp->dest);
	key.peer_port = bpf_ntohs(p->udp->source);
	return bpf_map_lookup_elem(&ikepulse_peers, &key);
}

/*
 * One dependent cache line, no hash. A free slot holds SPI 0, which no sender
 * may use (RFC 4303 section 2.1) but anyone can.
 */
static __always_inline struct hot_entry *find_hot(__u32 spi)
{
	__u32 slot = spi & SLOT_FIELD;
	struct hot_entry *hot;

	if (!spi || slot > slot_mask)
		return NULL;
	hot = bpf_map_lookup_elem(&ikepulse_hot, &slot);
	if (!hot || hot->spi != spi)
		return NULL;
	return hot;
}

static __always_inline struct sa_entry *find_sa(__u32 spi)
{
	__u32 slot = spi & SLOT_FIELD;

	return bpf_map_lookup_elem(&ikepulse_sas, &slot);
}

/* Ports are 0 for bare ESP, in the tuple as in the hash. */
static __always_inline __u32 packet_tuple_hash(const struct packet *p)
{
	if (!p->udp)
		return tuple_hash_ipv4(p->ip->daddr, p->ip->saddr, 0, 0);
	return tuple_hash_ipv4(p->ip->daddr, p->ip->saddr, bpf_ntohs(p->udp->dest), bpf_ntohs(p->udp->source));
}

#endif
