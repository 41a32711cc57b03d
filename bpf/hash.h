/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The tuple hash of hot: notices that an SA's packets come from elsewhere. It
 * guards nothing: a collision hides one hint. Go has the same steps; each is
 * a bijection, so a change of one word (NAT rebinding: the port) always shows.
 */
#ifndef IKEPULSE_HASH_H
#define IKEPULSE_HASH_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>

#define HASH_SEED 0x85ebca6b

static __always_inline __u32 hash_word(__u32 hash, __u32 word)
{
	hash = (hash ^ word) * 0x9e3779b1;
	return hash ^ (hash >> 15);
}

/* The words that tell IPv4 addresses apart, and the ports, in host order. */
static __always_inline __u32 hash_last(__u32 hash, __be32 local, __be32 peer, __u32 ports)
{
	hash = hash_word(hash, local);
	hash = hash_word(hash, peer);
	hash = hash_word(hash, ports);
	return hash ? hash : 1;
}

/*
 * The words that are the same for all of IPv4 come first: the compiler folds
 * them, and three steps are left at run time.
 */
static __always_inline __u32 tuple_hash_ipv4(__be32 local, __be32 peer, __u32 ports)
{
	const __u32 mapped[3] = {0, 0, bpf_htonl(0xffff)};
	__u32 hash = HASH_SEED;

	for (int i = 0; i < 6; i++)
		hash = hash_word(hash, mapped[i % 3]);
	return hash_last(hash, local, peer, ports);
}

static __always_inline __u32 tuple_hash_ipv6(const __be32 *local, const __be32 *peer, __u32 ports)
{
	__u32 hash = HASH_SEED;

	for (int i = 0; i < 3; i++)
		hash = hash_word(hash, local[i]);
	for (int i = 0; i < 3; i++)
		hash = hash_word(hash, peer[i]);
	return hash_last(hash, local[3], peer[3], ports);
}

#endif
