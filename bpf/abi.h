/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The ABI: what the XDP program, the daemon and bpftool agree on. bpf2go
 * mirrors these types into Go; nothing else may describe them.
 */
#ifndef IKEPULSE_ABI_H
#define IKEPULSE_ABI_H

#include <linux/types.h>

/*
 * Our inbound SPIs carry their slot: the low SLOT_BITS bits index hot and
 * sas, the rest is a tag that is never 0. The split is constant, whatever the
 * capacity, so that a resize or an upgrade never misreads a live SPI.
 */
enum slot_split {
	SLOT_BITS = 22,
	SLOT_FIELD = (1 << SLOT_BITS) - 1,
};

/*
 * Every way a frame can leave the program: X(name, verdict, why). This list
 * is the enum, the counters and the reason -> verdict table at once. New
 * reasons go at the end of their group; the order is not an ABI across
 * versions, names are.
 */
#define REASONS(X)                                                               \
	/* A stage forgot to decide: a bug, and no reason to lose traffic. */    \
	X(undecided, UNDECIDED, XDP_PASS)                                        \
	/* Not for us, or not read by this program: the stack sees it as ever. */ \
	X(truncated, TRUNCATED, XDP_PASS)                                        \
	X(not_ip, NOT_IP, XDP_PASS)                                              \
	X(vlan, VLAN, XDP_PASS)                                                  \
	X(ipv6, IPV6, XDP_PASS)                                                  \
	X(ip_malformed, IP_MALFORMED, XDP_PASS)                                  \
	X(ip_options, IP_OPTIONS, XDP_PASS)                                      \
	X(frag_first, FRAG_FIRST, XDP_PASS)                                      \
	X(frag_later, FRAG_LATER, XDP_PASS)                                      \
	X(ah, AH, XDP_PASS)                                                      \
	X(not_ipsec, NOT_IPSEC, XDP_PASS)                                        \
	X(udp_length, UDP_LENGTH, XDP_PASS)                                      \
	X(udp_other, UDP_OTHER, XDP_PASS)                                        \
	X(natt_short, NATT_SHORT, XDP_PASS)                                      \
	X(esp_short, ESP_SHORT, XDP_PASS)                                        \
	X(group_mac, GROUP_MAC, XDP_PASS)                                        \
	X(not_local, NOT_LOCAL, XDP_PASS)                                        \
	/* IKE is the daemon's. */                                               \
	X(ike_500, IKE_500, XDP_PASS)                                            \
	X(ike_natt, IKE_NATT, XDP_PASS)                                          \
	/* ESP is stamped and decrypted elsewhere, whatever we think of it. */   \
	X(esp_udp_known, ESP_UDP_KNOWN, XDP_PASS)                                \
	X(esp_udp_moved, ESP_UDP_MOVED, XDP_PASS)                                \
	X(esp_udp_unknown, ESP_UDP_UNKNOWN, XDP_PASS)                            \
	X(esp_known, ESP_KNOWN, XDP_PASS)                                        \
	X(esp_moved, ESP_MOVED, XDP_PASS)                                        \
	X(esp_unknown, ESP_UNKNOWN, XDP_PASS)                                    \
	/* NAT keepalives: the one thing that is taken off the stack. */         \
	X(keepalive_answered, KEEPALIVE_ANSWERED, XDP_TX)                        \
	X(keepalive_absorbed, KEEPALIVE_ABSORBED, XDP_DROP)                      \
	X(keepalive_not_natted, KEEPALIVE_NOT_NATTED, XDP_DROP)                  \
	X(keepalive_limited, KEEPALIVE_LIMITED, XDP_DROP)                        \
	X(keepalive_over_budget, KEEPALIVE_OVER_BUDGET, XDP_DROP)                \
	X(keepalive_passed, KEEPALIVE_PASSED, XDP_PASS)                          \
	/* RFC 3948 section 4: a receiver SHOULD ignore keepalives. */           \
	X(stranger_dropped, STRANGER_DROPPED, XDP_DROP)                          \
	X(stranger_passed, STRANGER_PASSED, XDP_PASS)

#define REASON_ENUM(field, name, verdict) REASON_##name,
enum reason { REASONS(REASON_ENUM) REASON_COUNT };

/* stats: frames by reason; field N counts enum reason N. */
#define REASON_FIELD(field, name, verdict) __u64 field;
struct stats {
	REASONS(REASON_FIELD)
};
_Static_assert(sizeof(struct stats) == REASON_COUNT * sizeof(__u64), "one counter a reason");

/* What becomes of a keepalive from a registered tuple. */
enum keepalive {
	KEEPALIVE_ANSWER, /* send it back, within the limits, else absorb */
	KEEPALIVE_ABSORB, /* stamp and drop */
	KEEPALIVE_PASS,   /* stamp and leave it to the stack */
};

enum peer_flag {
	PEER_NATTED = 1, /* the peer is the one behind a NAT: it may be answered */
};

enum sa_flag {
	SA_NATTED = 1, /* negotiated through a NAT */
};

/*
 * hot: all that a packet needs of its SA, in a quarter of a cache line.
 * Ticks are u32(jiffies64 >> tick_shift), 0 means never. The daemon reads and
 * writes it as two aligned 64-bit words: {spi, seen} and {auth, tuple_hash}.
 */
struct hot_entry {
	__u32 spi;        /* host order; 0: the slot is free */
	__u32 seen;       /* XDP: last tick with a packet, not authenticated: a hint */
	__u32 auth;       /* daemon: last tick with an authenticated packet */
	__u32 tuple_hash; /* daemon: hash of the expected tuple; 0: unknown */
};
_Static_assert(sizeof(struct hot_entry) == 16, "hot_entry");

/* sas: what changes seldom; one cache line an SA. */
struct sa_entry {
	__u32 spi; /* host order */
	__u32 generation;
	__u32 flags;      /* enum sa_flag */
	__u32 moved_tick; /* XDP: last tick with a packet from another tuple */
	__u8 local[16];   /* network order, IPv4 as ::ffff:a.b.c.d */
	__u8 peer[16];
	__u16 local_port; /* host order; 0 for bare ESP */
	__u16 peer_port;
	__u32 last_seq; /* XDP, only with account_every_packet */
	__u64 packets;  /* XDP, only with account_every_packet */
};
_Static_assert(sizeof(struct sa_entry) == 64, "sa_entry");

/* peers, key: a NAT mapping as we see it. */
struct peer_key {
	__u8 local[16]; /* network order, IPv4 as ::ffff:a.b.c.d */
	__u8 peer[16];
	__u16 local_port; /* host order */
	__u16 peer_port;
};
_Static_assert(sizeof(struct peer_key) == 36, "peer_key");

/* peers, value. */
struct peer_entry {
	__u32 owners;         /* daemon: SAs that use this mapping */
	__u32 flags;          /* daemon: enum peer_flag */
	__u32 keepalive_tick; /* XDP: last keepalive; never evidence of life */
	__u32 answer_tick;    /* XDP: last answer */
	__u64 keepalives;     /* XDP */
	__u64 answers;        /* XDP */
};
_Static_assert(sizeof(struct peer_entry) == 32, "peer_entry");

/* locals, key: one of our addresses. */
struct local_key {
	__u8 address[16]; /* network order, IPv4 as ::ffff:a.b.c.d */
};
_Static_assert(sizeof(struct local_key) == 16, "local_key");

/* budget: answers sent in a tick; XDP changes both with one 64-bit atomic. */
struct budget {
	__u32 count;
	__u32 tick;
};
_Static_assert(sizeof(struct budget) == 8, "budget");

/* LAYOUT_VERSION grows with every change of a map that its sizes do not show. */
enum layout {
	LAYOUT_VERSION = 1,
};

/* meta: what was loaded, for whoever reads the pins without the daemon. */
struct meta {
	__u32 layout;         /* LAYOUT_VERSION of who loaded it */
	__u32 capacity;       /* tunnels */
	__u64 netns_cookie;   /* SO_NETNS_COOKIE: the namespace it serves */
	__u64 loaded_ns;      /* CLOCK_BOOTTIME */
	__u32 jiffy_ns;       /* measured */
	__u32 tick_shift;     /* this and the rest: as in config.h */
	__u32 keepalive_mode; /* enum keepalive_mode */
	__u32 stranger_pass;
	__u32 answer_interval;
	__u32 answer_budget;
	__u32 natt_port;
	__u32 account_every_packet;
};
_Static_assert(sizeof(struct meta) == 56, "meta");

/* The context of ikepulse_clock: one reading of both clocks. */
struct clock_sample {
	__u64 jiffies;
	__u64 boottime_ns; /* CLOCK_BOOTTIME */
};
_Static_assert(sizeof(struct clock_sample) == 16, "clock_sample");

/*
 * BTF keeps only the types that something uses. This keeps the names of the
 * constants in the object, for bpftool and for the Go mirror.
 */
struct constants {
	enum slot_split slot;
	enum reason reason;
	enum keepalive keepalive;
	enum peer_flag peer;
	enum sa_flag sa;
	enum layout layout;
};

#endif
