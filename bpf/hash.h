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

/*
 * The words that are the same for all of IPv4 come first: the compiler folds
 * them, and three steps are left at run time. Ports in host order.
 */
static __always_inline __u32 tuple_hash_ipv4(__be32 local, __be32 peer, __u16 local_port, __u16 peer_port)
{
	const __u32 mapped[3] = {0, 0, bpf_htonl(0xffff)};
	__u32 hash = HASH_SEED;

	for (int i = 0; i < 6; i++)
		hash = hash_word(hash, mapped[i % 3]);
	hash = hash_word(hash, local);
	hash = hash_word(hash, peer);
	hash = hash_word(hash, (__u32)local_port << 16 | peer_port);
	return hash ? hash : 1;
}

#endif
