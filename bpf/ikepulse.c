//go:build ignore
// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "config.h"
#include "maps.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int ikepulse_xdp(struct xdp_md *ctx)
{
	(void)ctx;
	return conclude(REASON_UNDECIDED);
}

/* Both clocks at one moment: the daemon learns HZ and the offset from it. */
SEC("syscall")
int ikepulse_clock(struct clock_sample *sample)
{
	sample->jiffies = bpf_jiffies64();
	sample->boottime_ns = bpf_ktime_get_boot_ns();
	return 0;
}
