/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frames in several buffers: jumbo frames, and what a NIC has coalesced. The
 * headers are read in the first buffer only; where a driver splits them, the
 * frame passes, counted as split, and that SA has no stamps.
 */
#ifndef IKEPULSE_ARRIVED_H
#define IKEPULSE_ARRIVED_H

#include "packet.h"

/* Cold: a call. A frame in one buffer that is whole never gets here. */
static __always_inline long beyond_first_buffer(struct xdp_md *ctx)
{
	return (long)bpf_xdp_get_buff_len(ctx) - (ctx->data_end - ctx->data);
}

/* The datagram must have arrived whole, in however many buffers. */
static __always_inline enum reason check_arrived(struct packet *p)
{
	long missing = p->length - (p->end - p->next);

	if (missing <= 0)
		return GO_ON;
	return missing <= beyond_first_buffer(p->ctx) ? GO_ON : REASON_IP_LENGTH;
}

/* Why a header could not be taken. */
static __always_inline enum reason why_cut(struct xdp_md *ctx)
{
	return beyond_first_buffer(ctx) ? REASON_SPLIT : REASON_TRUNCATED;
}

#endif
