//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Answers NAT keepalives before the network stack sees them, and stamps every
 * ESP and AH SPI for the daemon. A frame goes through parse, classify, lookup,
 * stamp and reply; whichever stage ends its way gives the reason, and the
 * reason gives the verdict.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "classify.h"
#include "config.h"
#include "keepalive.h"
#include "maps.h"
#include "parse.h"
#include "sa.h"
#include "tables.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Lookup, stamp and reply, as far as each kind of packet goes. */
static __always_inline enum reason handle(const struct packet *p)
{
	switch (p->kind) {
	case KIND_KEEPALIVE:
		return keepalive(p);
	case KIND_SA:
		return sa(p);
	case KIND_IKE:
		return to_us(p) ? p->reason : REASON_NOT_LOCAL;
	}
	return REASON_UNDECIDED;
}

/*
 * frags: it understands frames in several buffers, so that drivers take it at
 * any MTU. Those without such frames do not mind.
 */
SEC("xdp.frags")
int ikepulse_xdp(struct xdp_md *ctx)
{
	struct packet packet = {};
	enum reason reason;

	reason = parse(&packet, ctx);
	if (reason == GO_ON)
		reason = classify(&packet);
	if (reason == GO_ON)
		reason = handle(&packet);
	if (reason == REASON_TRUNCATED)
		reason = why_cut(ctx);
	return conclude(reason);
}

/* Both clocks at one moment: the daemon learns HZ and the offset from it. */
SEC("syscall")
int ikepulse_clock(struct clock_sample *sample)
{
	sample->jiffies = bpf_jiffies64();
	sample->boottime_ns = bpf_ktime_get_boot_ns();
	return 0;
}
