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
 * Every way a frame can leave the program, and why its verdict is right:
 * X(counter, enumerator, verdict). This list is the enum, the counters and the
 * reason -> verdict table at once. User space knows reasons by name: the
 * numbers may change from one version to the next.
 */
#define REASONS(X) \
	X(undecided, UNDECIDED, XDP_PASS)                            /* no stage decided: a bug, and no reason to lose traffic */ \
	X(truncated, TRUNCATED, XDP_PASS)                            /* the frame ends before its headers, or its IP length, say */ \
	X(not_ip, NOT_IP, XDP_PASS)                                  /* ARP and all else */ \
	X(vlan, VLAN, XDP_PASS)                                      /* not read yet */ \
	X(ipv6, IPV6, XDP_PASS)                                      /* not read yet */ \
	X(ip_malformed, IP_MALFORMED, XDP_PASS)                      /* lengths or version that no IPv4 header has: the stack drops it */ \
	X(ip_options, IP_OPTIONS, XDP_PASS)                          /* not read yet */ \
	X(frag_first, FRAG_FIRST, XDP_PASS)                          /* a fragment's lengths prove nothing */ \
	X(frag_later, FRAG_LATER, XDP_PASS)                          /* no ports, no SPI */ \
	X(ah, AH, XDP_PASS)                                          /* not read yet */ \
	X(not_ipsec, NOT_IPSEC, XDP_PASS)                            /* another IP protocol */ \
	X(udp_length, UDP_LENGTH, XDP_PASS)                          /* UDP and IP length disagree, and nothing says which lies */ \
	X(udp_other, UDP_OTHER, XDP_PASS)                            /* another port */ \
	X(natt_short, NATT_SHORT, XDP_PASS)                          /* neither keepalive nor marker nor SPI: the daemon's to judge */ \
	X(esp_short, ESP_SHORT, XDP_PASS)                            /* no room for SPI and sequence number */ \
	X(group_mac, GROUP_MAC, XDP_PASS)                            /* a keepalive to a multicast MAC: an answer would come from it */ \
	X(not_local, NOT_LOCAL, XDP_PASS)                            /* transit, a routed customer's keepalives included */ \
	X(ike_500, IKE_500, XDP_PASS)                                /* IKE is the daemon's */ \
	X(ike_natt, IKE_NATT, XDP_PASS)                              /* IKE is the daemon's */ \
	X(esp_udp_known, ESP_UDP_KNOWN, XDP_PASS)                    /* stamped; decrypted elsewhere */ \
	X(esp_udp_moved, ESP_UDP_MOVED, XDP_PASS)                    /* stamped, from another tuple: a hint of NAT rebinding */ \
	X(esp_udp_unknown, ESP_UDP_UNKNOWN, XDP_PASS)                /* no SA of ours: the stack decides */ \
	X(esp_known, ESP_KNOWN, XDP_PASS)                            /* as in UDP */ \
	X(esp_moved, ESP_MOVED, XDP_PASS)                            /* as in UDP */ \
	X(esp_unknown, ESP_UNKNOWN, XDP_PASS)                        /* as in UDP */ \
	X(keepalive_answered, KEEPALIVE_ANSWERED, XDP_TX)            /* the natted peer of an SA, within all limits */ \
	X(keepalive_absorbed, KEEPALIVE_ABSORBED, XDP_DROP)          /* has done its work at the NAT; answers are off */ \
	X(keepalive_not_natted, KEEPALIVE_NOT_NATTED, XDP_DROP)      /* an answer would help nobody */ \
	X(keepalive_limited, KEEPALIVE_LIMITED, XDP_DROP)            /* answered less than an interval ago */ \
	X(keepalive_over_budget, KEEPALIVE_OVER_BUDGET, XDP_DROP)    /* enough answers for this tick */ \
	X(keepalive_passed, KEEPALIVE_PASSED, XDP_PASS)              /* the operator wants the stack to see it */ \
	X(stranger_dropped, STRANGER_DROPPED, XDP_DROP)              /* RFC 3948 section 4: SHOULD ignore */ \
	X(stranger_passed, STRANGER_PASSED, XDP_PASS)                /* the operator wants the stack to see it */

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

/*
 * meta: what was loaded, for whoever reads the pins without the daemon. The
 * first three fields stay where they are in every layout: by them a version
 * tells another's pins from those of another namespace.
 */
struct meta {
	__u32 layout;         /* LAYOUT_VERSION of who loaded it */
	__u32 capacity;       /* tunnels */
	__u64 netns_cookie;   /* SO_NETNS_COOKIE: the namespace it serves */
	__u64 loaded_ns;      /* CLOCK_BOOTTIME */
	__u32 jiffy_ns;       /* measured */
	__u32 tick_shift;     /* this and the rest: as in config.h */
	__u32 keepalive_mode; /* enum keepalive */
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
