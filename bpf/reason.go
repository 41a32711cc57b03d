package bpf

import (
	"fmt"
	"reflect"
)

// Reason is why a frame left the program: the index of its counter. abi.h has
// the list, and says what each stands for.
type Reason uint32

// The reasons.
const (
	ReasonUndecided           = Reason(ikepulseReasonREASON_UNDECIDED)
	ReasonTruncated           = Reason(ikepulseReasonREASON_TRUNCATED)
	ReasonNotIP               = Reason(ikepulseReasonREASON_NOT_IP)
	ReasonVLAN                = Reason(ikepulseReasonREASON_VLAN)
	ReasonIPv6                = Reason(ikepulseReasonREASON_IPV6)
	ReasonIPMalformed         = Reason(ikepulseReasonREASON_IP_MALFORMED)
	ReasonIPOptions           = Reason(ikepulseReasonREASON_IP_OPTIONS)
	ReasonFragFirst           = Reason(ikepulseReasonREASON_FRAG_FIRST)
	ReasonFragLater           = Reason(ikepulseReasonREASON_FRAG_LATER)
	ReasonAH                  = Reason(ikepulseReasonREASON_AH)
	ReasonNotIPsec            = Reason(ikepulseReasonREASON_NOT_IPSEC)
	ReasonUDPLength           = Reason(ikepulseReasonREASON_UDP_LENGTH)
	ReasonUDPOther            = Reason(ikepulseReasonREASON_UDP_OTHER)
	ReasonNATTShort           = Reason(ikepulseReasonREASON_NATT_SHORT)
	ReasonESPShort            = Reason(ikepulseReasonREASON_ESP_SHORT)
	ReasonGroupMAC            = Reason(ikepulseReasonREASON_GROUP_MAC)
	ReasonNotLocal            = Reason(ikepulseReasonREASON_NOT_LOCAL)
	ReasonIKE500              = Reason(ikepulseReasonREASON_IKE_500)
	ReasonIKENATT             = Reason(ikepulseReasonREASON_IKE_NATT)
	ReasonESPUDPKnown         = Reason(ikepulseReasonREASON_ESP_UDP_KNOWN)
	ReasonESPUDPMoved         = Reason(ikepulseReasonREASON_ESP_UDP_MOVED)
	ReasonESPUDPUnknown       = Reason(ikepulseReasonREASON_ESP_UDP_UNKNOWN)
	ReasonESPKnown            = Reason(ikepulseReasonREASON_ESP_KNOWN)
	ReasonESPMoved            = Reason(ikepulseReasonREASON_ESP_MOVED)
	ReasonESPUnknown          = Reason(ikepulseReasonREASON_ESP_UNKNOWN)
	ReasonKeepaliveAnswered   = Reason(ikepulseReasonREASON_KEEPALIVE_ANSWERED)
	ReasonKeepaliveAbsorbed   = Reason(ikepulseReasonREASON_KEEPALIVE_ABSORBED)
	ReasonKeepaliveNotNATted  = Reason(ikepulseReasonREASON_KEEPALIVE_NOT_NATTED)
	ReasonKeepaliveLimited    = Reason(ikepulseReasonREASON_KEEPALIVE_LIMITED)
	ReasonKeepaliveOverBudget = Reason(ikepulseReasonREASON_KEEPALIVE_OVER_BUDGET)
	ReasonKeepalivePassed     = Reason(ikepulseReasonREASON_KEEPALIVE_PASSED)
	ReasonStrangerDropped     = Reason(ikepulseReasonREASON_STRANGER_DROPPED)
	ReasonStrangerPassed      = Reason(ikepulseReasonREASON_STRANGER_PASSED)

	// ReasonCount is their number, not one of them.
	ReasonCount = Reason(ikepulseReasonREASON_COUNT)
)

// reasons repeats the names and the verdicts of abi.h, so that nobody has to
// parse the object to print a counter.
var reasons = [ReasonCount]struct {
	name    string
	verdict Verdict
}{
	ReasonUndecided:           {"undecided", VerdictPass},
	ReasonTruncated:           {"truncated", VerdictPass},
	ReasonNotIP:               {"not_ip", VerdictPass},
	ReasonVLAN:                {"vlan", VerdictPass},
	ReasonIPv6:                {"ipv6", VerdictPass},
	ReasonIPMalformed:         {"ip_malformed", VerdictPass},
	ReasonIPOptions:           {"ip_options", VerdictPass},
	ReasonFragFirst:           {"frag_first", VerdictPass},
	ReasonFragLater:           {"frag_later", VerdictPass},
	ReasonAH:                  {"ah", VerdictPass},
	ReasonNotIPsec:            {"not_ipsec", VerdictPass},
	ReasonUDPLength:           {"udp_length", VerdictPass},
	ReasonUDPOther:            {"udp_other", VerdictPass},
	ReasonNATTShort:           {"natt_short", VerdictPass},
	ReasonESPShort:            {"esp_short", VerdictPass},
	ReasonGroupMAC:            {"group_mac", VerdictPass},
	ReasonNotLocal:            {"not_local", VerdictPass},
	ReasonIKE500:              {"ike_500", VerdictPass},
	ReasonIKENATT:             {"ike_natt", VerdictPass},
	ReasonESPUDPKnown:         {"esp_udp_known", VerdictPass},
	ReasonESPUDPMoved:         {"esp_udp_moved", VerdictPass},
	ReasonESPUDPUnknown:       {"esp_udp_unknown", VerdictPass},
	ReasonESPKnown:            {"esp_known", VerdictPass},
	ReasonESPMoved:            {"esp_moved", VerdictPass},
	ReasonESPUnknown:          {"esp_unknown", VerdictPass},
	ReasonKeepaliveAnswered:   {"keepalive_answered", VerdictTX},
	ReasonKeepaliveAbsorbed:   {"keepalive_absorbed", VerdictDrop},
	ReasonKeepaliveNotNATted:  {"keepalive_not_natted", VerdictDrop},
	ReasonKeepaliveLimited:    {"keepalive_limited", VerdictDrop},
	ReasonKeepaliveOverBudget: {"keepalive_over_budget", VerdictDrop},
	ReasonKeepalivePassed:     {"keepalive_passed", VerdictPass},
	ReasonStrangerDropped:     {"stranger_dropped", VerdictDrop},
	ReasonStrangerPassed:      {"stranger_passed", VerdictPass},
}

// String returns the name of the counter, as bpftool shows it.
func (r Reason) String() string {
	if r >= ReasonCount {
		return fmt.Sprintf("reason(%d)", uint32(r))
	}
	return reasons[r].name
}

// Verdict returns what becomes of a frame for this reason; r is one of the
// constants.
func (r Reason) Verdict() Verdict {
	return reasons[r].verdict
}

// Of returns the counter of one reason.
func (c *ikepulseStats) Of(r Reason) uint64 {
	// Field 0 is the layout marker.
	return reflect.ValueOf(c).Elem().Field(1 + int(r)).Uint()
}

// Verdict is what the program returned for a frame.
type Verdict uint32

// The XDP verdicts in use; the values are the kernel's.
const (
	VerdictAborted Verdict = iota
	VerdictDrop
	VerdictPass
	VerdictTX
)

// String returns the name in lower case, as in "pass".
func (v Verdict) String() string {
	switch v {
	case VerdictAborted:
		return "aborted"
	case VerdictDrop:
		return "drop"
	case VerdictPass:
		return "pass"
	case VerdictTX:
		return "tx"
	}
	return fmt.Sprintf("verdict(%d)", uint32(v))
}
