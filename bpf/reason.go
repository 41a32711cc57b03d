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
	ReasonSplit               = Reason(ikepulseReasonREASON_SPLIT)
	ReasonNotIP               = Reason(ikepulseReasonREASON_NOT_IP)
	ReasonVLANDeep            = Reason(ikepulseReasonREASON_VLAN_DEEP)
	ReasonIPMalformed         = Reason(ikepulseReasonREASON_IP_MALFORMED)
	ReasonIPLength            = Reason(ikepulseReasonREASON_IP_LENGTH)
	ReasonExtensions          = Reason(ikepulseReasonREASON_EXTENSIONS)
	ReasonRouted              = Reason(ikepulseReasonREASON_ROUTED)
	ReasonFragLater           = Reason(ikepulseReasonREASON_FRAG_LATER)
	ReasonNotIPsec            = Reason(ikepulseReasonREASON_NOT_IPSEC)
	ReasonUDPLength           = Reason(ikepulseReasonREASON_UDP_LENGTH)
	ReasonUDPOther            = Reason(ikepulseReasonREASON_UDP_OTHER)
	ReasonFrom500             = Reason(ikepulseReasonREASON_FROM_500)
	ReasonFromNATT            = Reason(ikepulseReasonREASON_FROM_NATT)
	ReasonFragFromIKE         = Reason(ikepulseReasonREASON_FRAG_FROM_IKE)
	ReasonNATTShort           = Reason(ikepulseReasonREASON_NATT_SHORT)
	ReasonFragNATTShort       = Reason(ikepulseReasonREASON_FRAG_NATT_SHORT)
	ReasonESPShort            = Reason(ikepulseReasonREASON_ESP_SHORT)
	ReasonAHShort             = Reason(ikepulseReasonREASON_AH_SHORT)
	ReasonGroupMAC            = Reason(ikepulseReasonREASON_GROUP_MAC)
	ReasonOddKeepalive        = Reason(ikepulseReasonREASON_ODD_KEEPALIVE)
	ReasonNotLocal            = Reason(ikepulseReasonREASON_NOT_LOCAL)
	ReasonIKE500              = Reason(ikepulseReasonREASON_IKE_500)
	ReasonIKELength           = Reason(ikepulseReasonREASON_IKE_LENGTH)
	ReasonIKENATT             = Reason(ikepulseReasonREASON_IKE_NATT)
	ReasonFragIKE500          = Reason(ikepulseReasonREASON_FRAG_IKE_500)
	ReasonFragIKENATT         = Reason(ikepulseReasonREASON_FRAG_IKE_NATT)
	ReasonESPUDPKnown         = Reason(ikepulseReasonREASON_ESP_UDP_KNOWN)
	ReasonESPUDPMoved         = Reason(ikepulseReasonREASON_ESP_UDP_MOVED)
	ReasonESPUDPUnknown       = Reason(ikepulseReasonREASON_ESP_UDP_UNKNOWN)
	ReasonFragESPUDPKnown     = Reason(ikepulseReasonREASON_FRAG_ESP_UDP_KNOWN)
	ReasonFragESPUDPMoved     = Reason(ikepulseReasonREASON_FRAG_ESP_UDP_MOVED)
	ReasonFragESPUDPUnknown   = Reason(ikepulseReasonREASON_FRAG_ESP_UDP_UNKNOWN)
	ReasonESPKnown            = Reason(ikepulseReasonREASON_ESP_KNOWN)
	ReasonESPMoved            = Reason(ikepulseReasonREASON_ESP_MOVED)
	ReasonESPUnknown          = Reason(ikepulseReasonREASON_ESP_UNKNOWN)
	ReasonAHKnown             = Reason(ikepulseReasonREASON_AH_KNOWN)
	ReasonAHMoved             = Reason(ikepulseReasonREASON_AH_MOVED)
	ReasonAHUnknown           = Reason(ikepulseReasonREASON_AH_UNKNOWN)
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
	ReasonSplit:               {"split", VerdictPass},
	ReasonNotIP:               {"not_ip", VerdictPass},
	ReasonVLANDeep:            {"vlan_deep", VerdictPass},
	ReasonIPMalformed:         {"ip_malformed", VerdictPass},
	ReasonIPLength:            {"ip_length", VerdictPass},
	ReasonExtensions:          {"extensions", VerdictPass},
	ReasonRouted:              {"routed", VerdictPass},
	ReasonFragLater:           {"frag_later", VerdictPass},
	ReasonNotIPsec:            {"not_ipsec", VerdictPass},
	ReasonUDPLength:           {"udp_length", VerdictPass},
	ReasonUDPOther:            {"udp_other", VerdictPass},
	ReasonFrom500:             {"from_500", VerdictPass},
	ReasonFromNATT:            {"from_natt", VerdictPass},
	ReasonFragFromIKE:         {"frag_from_ike", VerdictPass},
	ReasonNATTShort:           {"natt_short", VerdictPass},
	ReasonFragNATTShort:       {"frag_natt_short", VerdictPass},
	ReasonESPShort:            {"esp_short", VerdictPass},
	ReasonAHShort:             {"ah_short", VerdictPass},
	ReasonGroupMAC:            {"group_mac", VerdictPass},
	ReasonOddKeepalive:        {"odd_keepalive", VerdictPass},
	ReasonNotLocal:            {"not_local", VerdictPass},
	ReasonIKE500:              {"ike_500", VerdictPass},
	ReasonIKELength:           {"ike_length", VerdictPass},
	ReasonIKENATT:             {"ike_natt", VerdictPass},
	ReasonFragIKE500:          {"frag_ike_500", VerdictPass},
	ReasonFragIKENATT:         {"frag_ike_natt", VerdictPass},
	ReasonESPUDPKnown:         {"esp_udp_known", VerdictPass},
	ReasonESPUDPMoved:         {"esp_udp_moved", VerdictPass},
	ReasonESPUDPUnknown:       {"esp_udp_unknown", VerdictPass},
	ReasonFragESPUDPKnown:     {"frag_esp_udp_known", VerdictPass},
	ReasonFragESPUDPMoved:     {"frag_esp_udp_moved", VerdictPass},
	ReasonFragESPUDPUnknown:   {"frag_esp_udp_unknown", VerdictPass},
	ReasonESPKnown:            {"esp_known", VerdictPass},
	ReasonESPMoved:            {"esp_moved", VerdictPass},
	ReasonESPUnknown:          {"esp_unknown", VerdictPass},
	ReasonAHKnown:             {"ah_known", VerdictPass},
	ReasonAHMoved:             {"ah_moved", VerdictPass},
	ReasonAHUnknown:           {"ah_unknown", VerdictPass},
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
