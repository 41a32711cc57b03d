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
	X(undecided, UNDECIDED, XDP_PASS)                         /* no stage decided: a bug, and no reason to lose traffic */ \
	X(truncated, TRUNCATED, XDP_PASS)                         /* the frame ends before its headers */ \
	X(split, SPLIT, XDP_PASS)                                 /* its headers reach beyond the first of its buffers, where nothing is read */ \
	X(not_ip, NOT_IP, XDP_PASS)                               /* ARP, PPPoE and all else */ \
	X(vlan_deep, VLAN_DEEP, XDP_PASS)                         /* more than two VLAN tags */ \
	X(ip_malformed, IP_MALFORMED, XDP_PASS)                   /* lengths, version or addresses that no IP header has: the stack drops it */ \
	X(ip_length, IP_LENGTH, XDP_PASS)                         /* less arrived than the IP header says */ \
	X(extensions, EXTENSIONS, XDP_PASS)                       /* more extension headers than are followed, or out of order */ \
	X(routed, ROUTED, XDP_PASS)                               /* a routing header leads on from here: no final destination */ \
	X(frag_later, FRAG_LATER, XDP_PASS)                       /* not a first fragment: no ports, no SPI */ \
	X(not_ipsec, NOT_IPSEC, XDP_PASS)                         /* another IP protocol */ \
	X(udp_length, UDP_LENGTH, XDP_PASS)                       /* UDP and IP length disagree, and nothing says which lies */ \
	X(udp_other, UDP_OTHER, XDP_PASS)                         /* another port */ \
	X(from_500, FROM_500, XDP_PASS)                           /* from the IKE port to another one */ \
	X(from_natt, FROM_NATT, XDP_PASS)                         /* from the NAT-T port to another one */ \
	X(frag_from_ike, FRAG_FROM_IKE, XDP_PASS)                 /* a first fragment from either of them to another one */ \
	X(natt_short, NATT_SHORT, XDP_PASS)                       /* neither keepalive nor marker nor SPI: the daemon's to judge */ \
	X(frag_natt_short, FRAG_NATT_SHORT, XDP_PASS)             /* the same in a first fragment, a keepalive included */ \
	X(esp_short, ESP_SHORT, XDP_PASS)                         /* no room for SPI and sequence number */ \
	X(ah_short, AH_SHORT, XDP_PASS)                           /* no room for SPI and sequence number, or for all that its length says */ \
	X(group_mac, GROUP_MAC, XDP_PASS)                         /* a keepalive to a multicast MAC, or from one: an answer would come from it, or go to all of it */ \
	X(odd_keepalive, ODD_KEEPALIVE, XDP_PASS)                 /* a keepalive behind IP options or extension headers: no NAT client's */ \
	X(not_local, NOT_LOCAL, XDP_PASS)                         /* transit, a routed customer's keepalives included */ \
	X(ike_500, IKE_500, XDP_PASS)                             /* IKE is the daemon's */ \
	X(ike_length, IKE_LENGTH, XDP_PASS)                       /* to the IKE port, UDP and IP length disagree */ \
	X(ike_natt, IKE_NATT, XDP_PASS)                           /* IKE is the daemon's */ \
	X(frag_ike_500, FRAG_IKE_500, XDP_PASS)                   /* its first fragment */ \
	X(frag_ike_natt, FRAG_IKE_NATT, XDP_PASS)                 /* its first fragment */ \
	X(esp_udp_known, ESP_UDP_KNOWN, XDP_PASS)                 /* stamped; decrypted elsewhere */ \
	X(esp_udp_moved, ESP_UDP_MOVED, XDP_PASS)                 /* stamped, from another tuple: a hint of NAT rebinding */ \
	X(esp_udp_unknown, ESP_UDP_UNKNOWN, XDP_PASS)             /* no SA of ours: the stack decides */ \
	X(frag_esp_udp_known, FRAG_ESP_UDP_KNOWN, XDP_PASS)       /* its first fragment */ \
	X(frag_esp_udp_moved, FRAG_ESP_UDP_MOVED, XDP_PASS)       /* its first fragment */ \
	X(frag_esp_udp_unknown, FRAG_ESP_UDP_UNKNOWN, XDP_PASS)   /* its first fragment */ \
	X(esp_known, ESP_KNOWN, XDP_PASS)                         /* as in UDP, first fragments included */ \
	X(esp_moved, ESP_MOVED, XDP_PASS)                         /* as in UDP */ \
	X(esp_unknown, ESP_UNKNOWN, XDP_PASS)                     /* as in UDP */ \
	X(ah_known, AH_KNOWN, XDP_PASS)                           /* as ESP */ \
	X(ah_moved, AH_MOVED, XDP_PASS)                           /* as ESP */ \
	X(ah_unknown, AH_UNKNOWN, XDP_PASS)                       /* as ESP */ \
	X(keepalive_answered, KEEPALIVE_ANSWERED, XDP_TX)         /* the natted peer of an SA, within all limits */ \
	X(keepalive_absorbed, KEEPALIVE_ABSORBED, XDP_DROP)       /* has done its work at the NAT; answers are off */ \
	X(keepalive_not_natted, KEEPALIVE_NOT_NATTED, XDP_DROP)   /* an answer would help nobody */ \
	X(keepalive_limited, KEEPALIVE_LIMITED, XDP_DROP)         /* answered less than an interval ago */ \
	X(keepalive_over_budget, KEEPALIVE_OVER_BUDGET, XDP_DROP) /* enough answers for this tick */ \
	X(keepalive_passed, KEEPALIVE_PASSED, XDP_PASS)           /* the operator wants the stack to see it, or every Nth */ \
	X(stranger_dropped, STRANGER_DROPPED, XDP_DROP)           /* RFC 3948 section 4: SHOULD ignore */ \
	X(stranger_passed, STRANGER_PASSED, XDP_PASS)             /* the operator wants the stack to see it */

#define REASON_ENUM(field, name, verdict) REASON_##name,
enum reason { REASONS(REASON_ENUM) REASON_COUNT };

/* An SA's packets leave by one of three: KNOWN is the first of them. */
#define OUTCOMES_ARE_ADJACENT(kind) \
	_Static_assert(REASON_##kind##_MOVED == REASON_##kind##_KNOWN + 1, #kind); \
	_Static_assert(REASON_##kind##_UNKNOWN == REASON_##kind##_KNOWN + 2, #kind)
OUTCOMES_ARE_ADJACENT(ESP_UDP);
OUTCOMES_ARE_ADJACENT(FRAG_ESP_UDP);
OUTCOMES_ARE_ADJACENT(ESP);
OUTCOMES_ARE_ADJACENT(AH);

/* stats: frames by reason, field N counting enum reason N, then events. */
#define REASON_FIELD(field, name, verdict) __u64 field;
struct stats {
	REASONS(REASON_FIELD)
	__u64 events;      /* written to the ring */
	__u64 events_lost; /* not written: the ring was full */
};
_Static_assert(sizeof(struct stats) == (REASON_COUNT + 2) * sizeof(__u64), "one counter a reason, two of events");

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
	__u32 moved_tick; /* XDP: last tick with a drift event, written or lost */
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

/* What a keepalive needs of its mapping, and leaves there. */
struct mapping {
	__u32 flags;          /* daemon: enum peer_flag */
	__u32 keepalive_tick; /* XDP: last keepalive; never evidence of life */
	__u32 answer_tick;    /* XDP: last answer */
	__u32 keepalives;     /* XDP; it wraps */
	__u32 answers;        /* XDP; it wraps */
};
_Static_assert(sizeof(struct mapping) == 20, "mapping");

/* peers, value. */
struct peer_entry {
	struct mapping mapping; /* unless it has a place */
	__u32 owners;           /* daemon: SAs that use this mapping */
	__u32 place;            /* daemon: 1 + number of the entry in near that has the mapping, or 0 */
};
_Static_assert(sizeof(struct peer_entry) == 28, "peer_entry");

enum near {
	NEAR_WAYS = 4,          /* entries in a bucket */
	NEAR_SPILLED_SHIFT = 8, /* above it, flags of a bucket's first entry count the tuples that found no room in it */
};

/*
 * near: an IPv4 mapping beside three others. The daemon writes the tuple and
 * the flags as two aligned 64-bit words: {peer, local}, {ports, flags}. A port
 * of 0 is nobody's.
 */
struct near_entry {
	__be32 peer;
	__be32 local;
	__u16 peer_port; /* host order */
	__u16 local_port;
	struct mapping mapping;
};
_Static_assert(sizeof(struct near_entry) == 32, "near_entry");

/* near, value: two cache lines that are fetched together. */
struct near_bucket {
	struct near_entry entries[NEAR_WAYS];
};
_Static_assert(sizeof(struct near_bucket) == 128, "near_bucket");

/*
 * follow, key: an SA of another daemon, whose SPI carries no slot of ours. One
 * SPI may stand for several of its SAs (RFC 4301 section 4.1).
 */
struct follow_key {
	__u8 local[16];  /* network order, IPv4 as ::ffff:a.b.c.d */
	__u32 spi;       /* host order */
	__u32 protocol;  /* IPPROTO_ESP, also in UDP, or IPPROTO_AH */
};
_Static_assert(sizeof(struct follow_key) == 24, "follow_key");

/* locals, key: one of our addresses. */
struct local_key {
	__u8 address[16]; /* network order, IPv4 as ::ffff:a.b.c.d */
};
_Static_assert(sizeof(struct local_key) == 16, "local_key");

/* budget, key: what is limited over all tuples and CPUs. */
enum budget_index {
	BUDGET_ANSWERS,
	BUDGET_STRANGERS, /* events */
	BUDGET_COUNT,
};

/* budget: how many in a tick; XDP changes both with one 64-bit atomic. */
struct budget {
	__u32 count;
	__u32 tick;
};
_Static_assert(sizeof(struct budget) == 8, "budget");

/* LAYOUT_VERSION grows with every change of a map that its sizes do not show. */
enum layout {
	LAYOUT_VERSION = 3,
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
	__u32 pass_every;
	__u32 foreign;
	__u32 drift_interval;
	__u32 stranger_budget;
};
_Static_assert(sizeof(struct meta) == 72, "meta");

enum event_kind {
	EVENT_DRIFT = 1, /* a known SPI from another tuple */
	EVENT_STRANGER,  /* a keepalive from a tuple that nobody registered */
};

/* events: nothing in it is authenticated; whoever reads it finds out. */
struct event {
	__u32 kind;             /* enum event_kind */
	__u32 spi;              /* drift: host order; else 0 */
	__u64 boottime_ns;      /* CLOCK_BOOTTIME */
	struct peer_key from;   /* what the packet came with; ports 0 without UDP */
	struct peer_key before; /* drift: what sas has; else 0 */
};
_Static_assert(sizeof(struct event) == 88, "event");

/* The context of ikepulse_clock: one reading of both clocks. */
struct clock_sample {
	__u64 jiffies;
	__u64 boottime_ns; /* CLOCK_BOOTTIME */
};
_Static_assert(sizeof(struct clock_sample) == 16, "clock_sample");

/*
 * BTF keeps only the types that a variable has. This keeps the names of the
 * constants, and what is in the ring, in the object: for bpftool and for the
 * Go mirror.
 */
struct constants {
	enum slot_split slot;
	enum reason reason;
	enum keepalive keepalive;
	enum peer_flag peer;
	enum sa_flag sa;
	enum layout layout;
	enum budget_index budget;
	enum event_kind kind;
	enum near near;
	struct event event;
};

#endif
