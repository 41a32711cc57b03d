/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps. XDP looks up and writes in place; it never inserts or deletes, so
 * no sender can grow a map or push a tunnel out of it.
 */
#ifndef IKEPULSE_MAPS_H
#define IKEPULSE_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* The loader sizes every map for its capacity; these are for 1,024 SAs. */
#define DEFAULT_SAS 1024

/*
 * Key: the SPI's slot, host order.
 * Value: hot_entry; SPI and ticks in host order.
 * Writers: the daemon through mmap (SPI last, removal first); XDP only seen.
 * Size: 2 x capacity, rounded up to a power of two: freed slots rest.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * DEFAULT_SAS);
	__type(key, __u32);
	__type(value, struct hot_entry);
} ikepulse_hot SEC(".maps");

/*
 * Key: the SPI's slot, host order.
 * Value: sa_entry; addresses in network order, the rest in host order.
 * Writers: the daemon before hot; XDP moved_tick, packets and last_seq.
 * Size: as hot, slot for slot.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * DEFAULT_SAS);
	__type(key, __u32);
	__type(value, struct sa_entry);
} ikepulse_sas SEC(".maps");

/*
 * Key: peer_key; addresses in network order, ports in host order.
 * Value: peer_entry, all in host order.
 * Writers: the daemon inserts, counts owners, deletes; XDP mappings that are here.
 * Size: 2 x capacity: each SA has one tuple, and two while it moves.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * DEFAULT_SAS);
	__type(key, struct peer_key);
	__type(value, struct peer_entry);
} ikepulse_peers SEC(".maps");

/*
 * Key: a bucket, the low bits of the tuple's hash (hash.h).
 * Value: near_bucket; addresses in network order, the rest in host order.
 * Writers: the daemon through mmap; XDP ticks and counts.
 * Size: as many entries as hot has, in buckets. A lookup in peers waits for
 * memory four times, one here once: a million random tuples cost 250 ns, not 490.
 * IPv6, and the few whose bucket is full, are in peers alone.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * DEFAULT_SAS / NEAR_WAYS);
	__type(key, __u32);
	__type(value, struct near_bucket);
} ikepulse_near SEC(".maps");

/*
 * Key: follow_key; the address in network order, the rest in host order.
 * Value: slot in hot and sas, host order.
 * Writers: the daemon, beside another one only; XDP none.
 * Size: as hot when it follows, else 1.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * DEFAULT_SAS);
	__type(key, struct follow_key);
	__type(value, __u32);
} ikepulse_follow SEC(".maps");

/*
 * Key: local_key, network order.
 * Value: flags, host order; none yet, 0.
 * Writers: the daemon, or attach without one; XDP none.
 * Size: a gateway's own addresses; a full map is refused at attach.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct local_key);
	__type(value, __u32);
} ikepulse_locals SEC(".maps");

/*
 * Key: 0.
 * Value: stats, a counter a reason, host order; the reader sums the CPUs.
 * Writers: XDP only, once a frame; per CPU, so a plain add is enough.
 * Size: one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stats);
} ikepulse_stats SEC(".maps");

/*
 * Key: enum budget_index.
 * Value: budget, how many in the newest tick that had one, host order.
 * Writers: XDP only, atomically: the limit holds over all CPUs.
 * Size: one a limit.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BUDGET_COUNT);
	__type(key, __u32);
	__type(value, struct budget);
} ikepulse_budget SEC(".maps");

/*
 * Key: none, it is a ring.
 * Value: event; addresses in network order, the rest in host order.
 * Writers: XDP, which never waits: full means lost and counted.
 * Size: all of 10,000 peers behind a NAT that restarts; a power of two.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} ikepulse_events SEC(".maps");

/*
 * Key: 0.
 * Value: meta, host order.
 * Writers: the loader, before it pins and when it replaces the program.
 * Size: one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct meta);
} ikepulse_meta SEC(".maps");

#endif
