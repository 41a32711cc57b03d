//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * What the product's program is measured with and against. None of it is in the
 * product: mutators give every run another frame and hand it on by a tail call,
 * floors do nothing, the limit does the least that can be done for an SPI, and
 * the textbook does what most would write first.
 */
#include "frame.h"
#include "pick.h"
#include "state.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The program that an arm measures behind its mutator. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");

/*
 * An array like the product's hot entries: as many bytes an SPI, mapped alike.
 * A chained mutator has the array of the program behind it in this place.
 */
struct limit_entry {
	__u32 spi;
	__u32 seen;
	__u64 rest;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct limit_entry);
} limit SEC(".maps");

static __always_inline int hand_on(struct xdp_md *ctx)
{
	state.tick++;
	bpf_tail_call(ctx, &next, 0);
	return missed();
}

/*
 * A CPU begins with the next frame while the last one's line is on its way, as
 * it hardly could with a driver's work in between. Here it must wait: the
 * chosen SPI depends on what came.
 */
static __always_inline void wait_for(__u32 spi)
{
	__u32 slot = spi & slot_mask;
	struct limit_entry *entry = bpf_map_lookup_elem(&limit, &slot);

	if (entry)
		state.lcg += *(volatile __u32 *)&entry->spi * state.zero;
}

/* Another SPI. */
SEC("xdp")
int mutate_esp(struct xdp_md *ctx)
{
	struct headers h = headers(ctx);

	if (!h.eth)
		return missed();
	if (chained)
		wait_for(bpf_ntohl(*h.spi));
	*h.spi = bpf_htonl(spi_of(pick()));
	return hand_on(ctx);
}

/* The whole keepalive, from another tuple: an answer has turned the last one. */
SEC("xdp")
int mutate_keepalive(struct xdp_md *ctx)
{
	if (!write_keepalive(ctx, pick()))
		return missed();
	return hand_on(ctx);
}

/* Floors. */
SEC("xdp")
int floor_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int floor_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int floor_tx(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* As far as any tracker must go before it can look up. */
SEC("xdp")
int parse_only(struct xdp_md *ctx)
{
	struct headers h = headers(ctx);

	return parse_esp(&h) ? XDP_PASS : missed();
}

static __always_inline struct limit_entry *find_limit(struct xdp_md *ctx)
{
	struct headers h = headers(ctx);
	__u32 spi = parse_esp(&h);
	__u32 slot = spi & slot_mask;
	struct limit_entry *entry = bpf_map_lookup_elem(&limit, &slot);

	return entry && entry->spi == spi ? entry : NULL;
}

SEC("xdp")
int limit_load(struct xdp_md *ctx)
{
	return find_limit(ctx) ? XDP_PASS : missed();
}

SEC("xdp")
int limit_store(struct xdp_md *ctx)
{
	struct limit_entry *entry = find_limit(ctx);

	if (!entry)
		return missed();
	*(volatile __u32 *)&entry->seen = state.tick;
	return XDP_PASS;
}

/* As many bytes as the product has for a keepalive's tuple, mapped alike. */
struct limit_mapping {
	__u64 rest[3];
	__u32 seen;
	__u32 more;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct limit_mapping);
} mappings SEC(".maps");

/* The least for a keepalive's tuple: one line of its own, read and stamped. */
SEC("xdp")
int limit_keepalive(struct xdp_md *ctx)
{
	struct headers h = headers(ctx);
	struct limit_mapping *entry;
	__u32 index;

	if (!parse_esp(&h) || *(__u8 *)h.spi != 0xff)
		return missed();
	index = (bpf_ntohl(h.ip->saddr) * PORTS_A_PEER + bpf_ntohs(h.udp->source)) * 0x9e3779b1 & slot_mask;
	entry = bpf_map_lookup_elem(&mappings, &index);
	if (!entry || entry->seen == state.tick)
		return missed();
	*(volatile __u32 *)&entry->seen = state.tick;
	return XDP_DROP;
}

/* RFC 4301 section 4.1 finds an SA by SPI and destination. */
struct textbook_key {
	__u32 spi; /* host order */
	__u32 dst; /* network order */
};

struct textbook_entry {
	__u64 last; /* bpf_ktime_get_ns, or jiffies */
};

/* Preallocated, as a hash is unless told otherwise. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct textbook_key);
	__type(value, struct textbook_entry);
} textbook SEC(".maps");

static __always_inline struct textbook_entry *find_textbook(struct xdp_md *ctx)
{
	struct headers h = headers(ctx);
	struct textbook_key key = {};

	key.spi = parse_esp(&h);
	if (!key.spi)
		return NULL;
	key.dst = h.ip->daddr;
	return bpf_map_lookup_elem(&textbook, &key);
}

/* Every packet writes what time it is. */
SEC("xdp")
int textbook_ktime(struct xdp_md *ctx)
{
	struct textbook_entry *entry = find_textbook(ctx);

	if (!entry)
		return missed();
	entry->last = bpf_ktime_get_ns();
	return XDP_PASS;
}

/* The same hash with the product's clock: what the hash alone costs. */
SEC("xdp")
int textbook_tick(struct xdp_md *ctx)
{
	struct textbook_entry *entry = find_textbook(ctx);
	__u64 now = bpf_jiffies64() >> 8;

	if (!entry)
		return missed();
	if (*(volatile __u64 *)&entry->last != now)
		*(volatile __u64 *)&entry->last = now;
	return XDP_PASS;
}

/* The other end of the link. */
SEC("xdp")
int sink(struct xdp_md *ctx)
{
	state.sunk++;
	if (is_answer(ctx))
		state.turned++;
	return XDP_DROP;
}
