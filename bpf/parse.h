/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Stage 1: Ethernet and IP. Nothing here changes the frame: failures PASS. */
#ifndef IKEPULSE_PARSE_H
#define IKEPULSE_PARSE_H

#include "ipv4.h"
#include "ipv6.h"
#include "packet.h"

/* IEEE 802.1Q section 9.6, without the EtherType in front, which was taken. */
struct vlan_tag {
	__be16 control;
	__be16 type; /* of what follows */
};

#define VLAN_TAGS 2 /* a customer's in a provider's */

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* The tags stay where they are: an answer leaves with those that it came with. */
static __always_inline enum reason parse_ethernet(struct packet *p, __be16 *type)
{
	p->eth = take(p, sizeof(*p->eth));
	if (!p->eth)
		return REASON_TRUNCATED;
	*type = p->eth->h_proto;

	for (int i = 0; i < VLAN_TAGS && is_vlan(*type); i++) {
		struct vlan_tag *tag = take(p, sizeof(*tag));

		if (!tag)
			return REASON_TRUNCATED;
		*type = tag->type;
	}
	return is_vlan(*type) ? REASON_VLAN_DEEP : GO_ON;
}

static __always_inline enum reason parse(struct packet *p, struct xdp_md *ctx)
{
	enum reason reason;
	__be16 type;

	p->ctx = ctx;
	p->next = (void *)(long)ctx->data;
	p->end = (void *)(long)ctx->data_end;

	reason = parse_ethernet(p, &type);
	if (reason != GO_ON)
		return reason;
	switch (type) {
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(p);
	case bpf_htons(ETH_P_IPV6):
		return parse_ipv6(p);
	}
	return REASON_NOT_IP;
}

#endif
