/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Tables of the maps, for cat: one program a map, pinned as an iterator. They
 * change nothing. Addresses come last, for they cannot be padded.
 */
#ifndef IKEPULSE_TABLES_H
#define IKEPULSE_TABLES_H

#include "limit.h"
#include "maps.h"
#include "verdict.h"

/* The part of the kernel's types that is read, found by name when loading. */
struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;   /* NULL at the end */
	void *value;
} __attribute__((preserve_access_index));

#define CPUS 8192 /* at most, CONFIG_NR_CPUS */

static const char reason_names[REASON_COUNT][24] = {
#define REASON_NAME(field, name, verdict) #field,
	REASONS(REASON_NAME)
};

static const char verdict_names[][8] = {[XDP_DROP] = "drop", [XDP_PASS] = "pass", [XDP_TX] = "tx"};

/*
 * How long ago at most: since its tick began. The length of a tick is meta's,
 * so that a program pinned by one version reads the stamps of the next.
 */
static __always_inline void print_age(struct seq_file *seq, __u32 tick)
{
	__u32 zero = 0;
	struct meta *meta = bpf_map_lookup_elem(&ikepulse_meta, &zero);
	__u64 jiffies = bpf_jiffies64();
	__s32 ticks;

	if (!meta)
		return;
	if (!tick) {
		BPF_SEQ_PRINTF(seq, "      never");
		return;
	}
	ticks = (__u32)(jiffies >> (meta->tick_shift & 63)) - tick;
	if (ticks < 0)
		ticks = 0;
	jiffies = ((__u64)ticks << (meta->tick_shift & 63)) + (jiffies & ((1ULL << (meta->tick_shift & 63)) - 1));
	BPF_SEQ_PRINTF(seq, " %10llu", jiffies * meta->jiffy_ns / 1000000);
}

/* What is kept only with account_every_packet: else 0 would look like a figure. */
static __always_inline void print_account(struct seq_file *seq, const struct sa_entry *sa)
{
	__u32 zero = 0;
	struct meta *meta = bpf_map_lookup_elem(&ikepulse_meta, &zero);

	if (meta && meta->account_every_packet)
		BPF_SEQ_PRINTF(seq, " %10llu %10u", sa->packets, sa->last_seq);
	else
		BPF_SEQ_PRINTF(seq, "          -          -");
}

static __always_inline void print_end(struct seq_file *seq, const __u8 *address, __u16 port)
{
	const __be32 *words = (const __be32 *)address;

	if (!words[0] && !words[1] && words[2] == bpf_htonl(0xffff))
		BPF_SEQ_PRINTF(seq, " %pI4:%u", &words[3], port);
	else
		BPF_SEQ_PRINTF(seq, " [%pI6]:%u", words, port);
}

/* With the first entry: the call at the end cannot tell whether there was one. */
static __always_inline bool at_start(const struct bpf_iter__bpf_map_elem *ctx)
{
	return ctx->meta->seq_num == 0;
}

/*
 * The kernel ends a read with EAGAIN when a million entries in a row print
 * nothing, so the header comes again, also among free slots.
 */
#define SLOTS_A_HEADER (1 << 19)

SEC("iter/bpf_map_elem")
int ikepulse_lssas(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	const __u32 *key = ctx->key;
	const struct sa_entry *sa = ctx->value;
	struct hot_entry *hot;
	__u32 slot;

	if (!key || !sa)
		return 0;
	slot = *key;
	if (slot % SLOTS_A_HEADER == 0)
		BPF_SEQ_PRINTF(seq, "spi         slot    seen_ms    auth_ms   drift_ms    packets   last_seq natted from to\n");
	hot = bpf_map_lookup_elem(&ikepulse_hot, &slot);
	if (!sa->spi || !hot || hot->spi != sa->spi)
		return 0;
	BPF_SEQ_PRINTF(seq, "%08x %7u", sa->spi, slot);
	print_age(seq, hot->seen);
	print_age(seq, hot->auth);
	print_age(seq, sa->moved_tick);
	print_account(seq, sa);
	BPF_SEQ_PRINTF(seq, " %6u", sa->flags & SA_NATTED);
	print_end(seq, sa->peer, sa->peer_port);
	print_end(seq, sa->local, sa->local_port);
	BPF_SEQ_PRINTF(seq, "\n");
	return 0;
}

static __always_inline const struct mapping *mapping_of(const struct peer_entry *peer)
{
	__u32 index = (peer->place - 1) / NEAR_WAYS, way = (peer->place - 1) % NEAR_WAYS;
	struct near_bucket *bucket;

	if (!peer->place)
		return &peer->mapping;
	bucket = bpf_map_lookup_elem(&ikepulse_near, &index);
	return bucket ? &bucket->entries[way].mapping : NULL;
}

SEC("iter/bpf_map_elem")
int ikepulse_lspeer(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	const struct peer_key *key = ctx->key;
	const struct peer_entry *peer = ctx->value;
	const struct mapping *mapping;

	if (!key || !peer)
		return 0;
	mapping = mapping_of(peer);
	if (!mapping)
		return 0;
	if (at_start(ctx))
		BPF_SEQ_PRINTF(seq, "owners natted keepalives    last_ms    answers  answer_ms from to\n");
	BPF_SEQ_PRINTF(seq, "%6u %6u %10u", peer->owners, mapping->flags & PEER_NATTED, mapping->keepalives);
	print_age(seq, mapping->keepalive_tick);
	BPF_SEQ_PRINTF(seq, " %10u", mapping->answers);
	print_age(seq, mapping->answer_tick);
	print_end(seq, key->peer, key->peer_port);
	print_end(seq, key->local, key->local_port);
	BPF_SEQ_PRINTF(seq, "\n");
	return 0;
}

/* One counter of stats, by its index, over the CPUs. */
struct total {
	__u32 index;
	__u64 sum;
};

/* Called for each CPU until there is none; the verifier follows it once. */
static long add_cpu(__u32 cpu, struct total *total)
{
	__u32 zero = 0, index = total->index;
	__u64 *counters = bpf_map_lookup_percpu_elem(&ikepulse_stats, &zero, cpu);

	barrier_var(index); /* or what is compared is not what is used */
	if (!counters || index >= sizeof(struct stats) / sizeof(*counters))
		return 1;
	total->sum += counters[index];
	return 0;
}

static __always_inline __u64 sum_cpus(__u32 index)
{
	struct total total = {.index = index};

	bpf_loop(CPUS, add_cpu, &total, 0);
	return total.sum;
}

/* Called for each reason. */
static long print_reason(__u32 reason, struct seq_file **seq)
{
	__u32 verdict;

	if (reason >= REASON_COUNT)
		return 1;
	verdict = verdicts[reason];
	if (verdict >= sizeof(verdict_names) / sizeof(verdict_names[0]))
		return 1;
	BPF_SEQ_PRINTF(*seq, "%20llu %-7s %s\n", sum_cpus(reason), verdict_names[verdict], reason_names[reason]);
	return 0;
}

SEC("iter/bpf_map_elem")
int ikepulse_lsstat(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;

	if (!ctx->key)
		return 0;
	BPF_SEQ_PRINTF(seq, "              frames verdict reason\n");
	bpf_loop(REASON_COUNT, print_reason, &seq, 0);
	BPF_SEQ_PRINTF(seq, "%20llu -       events\n", sum_cpus(REASON_COUNT));
	BPF_SEQ_PRINTF(seq, "%20llu -       events_lost\n", sum_cpus(REASON_COUNT + 1));
	return 0;
}

#endif
