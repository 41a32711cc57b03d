//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Answers NAT keepalives before the network stack sees them, and stamps every
 * ESP SPI for the daemon. A frame goes through parse, classify, lookup, stamp
 * and reply; whichever stage ends its way gives the reason, and the reason
 * gives the verdict.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "classify.h"
#include "config.h"
#include "esp.h"
#include "keepalive.h"
#include "maps.h"
#include "parse.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Lookup, stamp and reply, as far as each kind of packet goes. */
static __always_inline enum reason handle(const struct packet *p)
{
	switch (p->kind) {
	case KIND_KEEPALIVE:
		return keepalive(p);
	case KIND_ESP:
		return esp(p);
	case KIND_IKE_500:
		return to_us(p) ? REASON_IKE_500 : REASON_NOT_LOCAL;
	case KIND_IKE_NATT:
		return to_us(p) ? REASON_IKE_NATT : REASON_NOT_LOCAL;
	}
	return REASON_UNDECIDED;
}

SEC("xdp")
int ikepulse_xdp(struct xdp_md *ctx)
{
	struct packet packet = {};
	enum reason reason;

	reason = parse(&packet, ctx);
	if (reason == GO_ON)
		reason = classify(&packet);
	if (reason == GO_ON)
		reason = handle(&packet);
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
