/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Stage 3: what the maps know of the packet's addresses and of its SPI. */
#ifndef IKEPULSE_LOOKUP_H
#define IKEPULSE_LOOKUP_H

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

static __always_inline void get_local(const struct packet *p, __u8 *address)
{
	if (p->ipv6)
		__builtin_memcpy(address, &p->ip6->daddr, sizeof(p->ip6->daddr));
	else
		map_ipv4(address, p->ip->daddr);
}

static __always_inline void get_peer(const struct packet *p, __u8 *address)
{
	if (p->ipv6)
		__builtin_memcpy(address, &p->ip6->saddr, sizeof(p->ip6->saddr));
	else
		map_ipv4(address, p->ip->saddr);
}

/* Ports are 0 without UDP. */
static __always_inline void get_tuple(const struct packet *p, struct peer_key *tuple)
{
	get_local(p, tuple->local);
	get_peer(p, tuple->peer);
	tuple->local_port = p->in_udp ? bpf_ntohs(p->udp->dest) : 0;
	tuple->peer_port = p->in_udp ? bpf_ntohs(p->udp->source) : 0;
}

/* A hash lookup: for what is rare, or would be dropped, or raises an alarm. */
static __always_inline bool to_us(const struct packet *p)
{
	struct local_key key;

	get_local(p, key.address);
	return bpf_map_lookup_elem(&ikepulse_locals, &key);
}

/* As in a tuple's hash: the destination above the source; 0 without UDP. */
static __always_inline __u32 packet_ports(const struct packet *p)
{
	return p->in_udp ? (__u32)bpf_ntohs(p->udp->dest) << 16 | bpf_ntohs(p->udp->source) : 0;
}

static __always_inline __u32 packet_tuple_hash(const struct packet *p)
{
	__u32 ports = packet_ports(p);

	if (p->ipv6)
		return tuple_hash_ipv6(p->ip6->daddr.in6_u.u6_addr32, p->ip6->saddr.in6_u.u6_addr32, ports);
	return tuple_hash_ipv4(p->ip->daddr, p->ip->saddr, ports);
}

/*
 * NULL if there is none, and then whether it may be in peers. The whole tuple
 * is compared, as the words that the daemon writes: a bucket proves nothing.
 */
static __always_inline struct mapping *find_near(const struct packet *p, bool *spilled)
{
	__u32 index = packet_tuple_hash(p) & slot_mask / NEAR_WAYS;
	struct near_bucket *bucket = bpf_map_lookup_elem(&ikepulse_near, &index);
	__u64 addresses = (__u64)p->ip->daddr << 32 | p->ip->saddr;
	__u32 ports = packet_ports(p);

	if (!bucket)
		return NULL;
#pragma unroll
	for (int i = 0; i < NEAR_WAYS; i++) {
		struct near_entry *entry = &bucket->entries[i];

		if (*(__u64 *)&entry->peer == addresses && *(__u32 *)&entry->peer_port == ports)
			return &entry->mapping;
	}
	*spilled = bucket->entries[0].mapping.flags >> NEAR_SPILLED_SHIFT;
	return NULL;
}

/* A registered tuple's local address is ours by definition. */
static __always_inline struct mapping *find_mapping(const struct packet *p)
{
	bool spilled = p->ipv6;
	struct mapping *near = p->ipv6 ? NULL : find_near(p, &spilled);
	struct peer_entry *peer;
	struct peer_key key;

	if (near || !spilled)
		return near;
	get_tuple(p, &key);
	peer = bpf_map_lookup_elem(&ikepulse_peers, &key);
	return peer ? &peer->mapping : NULL;
}

/* Another daemon chose the SPI, so only a hash knows where its entry is. */
static __always_inline bool find_followed(const struct packet *p, __u32 spi, __u32 *slot)
{
	struct follow_key key = {.spi = spi, .protocol = p->protocol == IPPROTO_AH ? IPPROTO_AH : IPPROTO_ESP};
	__u32 *found;

	get_local(p, key.local);
	found = bpf_map_lookup_elem(&ikepulse_follow, &key);
	if (!found)
		return false;
	*slot = *found;
	return true;
}

static __always_inline bool find_slot(const struct packet *p, __u32 spi, __u32 *slot)
{
	if (foreign)
		return find_followed(p, spi, slot);
	*slot = spi & SLOT_FIELD;
	return *slot <= slot_mask;
}

/*
 * One dependent cache line, no hash. A free slot holds SPI 0, which no sender
 * may use (RFC 4303 section 2.1) but anyone can.
 */
static __always_inline struct hot_entry *find_hot(const struct packet *p, __u32 spi, __u32 *slot)
{
	struct hot_entry *hot;

	if (!spi || !find_slot(p, spi, slot))
		return NULL;
	hot = bpf_map_lookup_elem(&ikepulse_hot, slot);
	if (!hot || hot->spi != spi)
		return NULL;
	return hot;
}

static __always_inline struct sa_entry *find_sa(__u32 slot)
{
	return bpf_map_lookup_elem(&ikepulse_sas, &slot);
}

#endif
