/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The single exit: count the reason, look up its verdict. */
#ifndef IKEPULSE_VERDICT_H
#define IKEPULSE_VERDICT_H

#include "maps.h"

#define REASON_VERDICT(field, name, verdict) [REASON_##name] = verdict,

/* Not static: user space reads this table, too, to say what a counter means. */
const __u32 verdicts[REASON_COUNT] = {REASONS(REASON_VERDICT)};

static __always_inline int conclude(enum reason reason)
{
	__u32 zero = 0;
	__u64 *counters = bpf_map_lookup_elem(&ikepulse_stats, &zero);

	if (!counters || reason >= REASON_COUNT)
		/* Neither happens; the verifier wants it said, and a frame is never lost for a counter. */
		return XDP_PASS;
	counters[reason]++;
	return verdicts[reason];
}

#endif
