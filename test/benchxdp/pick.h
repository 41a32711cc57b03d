/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which SPI or tuple the next frame has: arithmetic alone, no table to miss in. */
#ifndef BENCHXDP_PICK_H
#define BENCHXDP_PICK_H

#include "state.h"

/* D. Knuth's MMIX; the high half is good enough to choose a cache line by. */
#define LCG_FACTOR 6364136223846793005ull
#define LCG_STEP 1442695040888963407ull

#define ZIPF_FRACTION 27

static __always_inline __u64 next_random(void)
{
	state.lcg = state.lcg * LCG_FACTOR + LCG_STEP;
	return state.lcg >> 32;
}

/*
 * With exponent 1 the logarithm of a rank is uniform: rank = 2^(u log2 members).
 * 2^f is 1 + f(0.6565 + 0.3435 f) within 0.2 %. Ranks count from 1.
 */
static __always_inline __u32 pick_zipf(void)
{
	__u64 x = next_random() * zipf_span; /* 59 bits after the point */
	__u64 fraction = (x >> ZIPF_FRACTION) & 0xffffffff;
	__u64 curve = 2819646045ull + (fraction * 1475321251ull >> 32);
	__u64 rank = (1ull << 32) + (fraction * curve >> 32);

	rank = rank << (x >> (32 + ZIPF_FRACTION)) >> 32;
	return rank <= members ? rank - 1 : members - 1;
}

static __always_inline __u32 pick(void)
{
	return zipf ? pick_zipf() : next_random() * members >> 32;
}

/*
 * Members lie all over the slots, no two in one: the factor is odd and the
 * slots are a power of two. Tags are never 0. SPI 0x3fffff and below is tag 0.
 */
static __always_inline __u32 spi_of(__u32 member)
{
	__u32 slot = member * 0x9e3779b1 & slot_mask;
	__u32 tag = member * 0x85ebca6b >> 22 | 1;

	return tag << 22 | slot;
}

#endif
