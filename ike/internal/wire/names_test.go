package wire

import (
	"fmt"
	"testing"
)

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		value fmt.Stringer
		want  string
	}{
		{IKESAInit, "IKE_SA_INIT"}, {ExchangeType(240), "exchange 240"},
		{TypeIDi, "IDi"}, {NoNext, "none"}, {PayloadType(240), "payload 240"},
		{ProtoESP, "ESP"}, {ProtocolID(240), "protocol 240"},
		{TransformKE, "KE"}, {TransformType(240), "transform 240"},
		{IDDERDN, "ID_DER_ASN1_DN"}, {IDType(4), "identity 4"},
		{AuthSharedKey, "shared key"}, {AuthMethod(240), "method 240"},
		{CFGRequest, "CFG_REQUEST"}, {CPType(0), "configuration 0"},
		{NoProposalChosen, "NO_PROPOSAL_CHOSEN"}, {RekeySA, "REKEY_SA"}, {NotifyType(65535), "notify 65535"},
		{FlagInitiator, "initiator"}, {FlagInitiator | FlagResponse, "initiator,response"},
		{Flags(0), "0x00"}, {Flags(0xff), "initiator,version,response,0xc7"}, {Flags(1), "0x01"},
	} {
		if got := tt.value.String(); got != tt.want {
			t.Errorf("%T %v: %q, want %q", tt.value, tt.value, got, tt.want)
		}
	}
}

// Two numbers of one name would hide one behind the other in a log.
func TestNamesAreUnique(t *testing.T) {
	checkUnique(t, exchangeNames)
	checkUnique(t, payloadNames)
	checkUnique(t, protocolNames)
	checkUnique(t, transformNames)
	checkUnique(t, idNames)
	checkUnique(t, authNames)
	checkUnique(t, cpNames)
	checkUnique(t, notifyNames)
}

func checkUnique[T ~uint8 | ~uint16](t *testing.T, names map[T]string) {
	t.Helper()
	seen := map[string]T{}
	for v, s := range names {
		if other, twice := seen[s]; twice || s == "" {
			t.Errorf("%d and %d are both %q", v, other, s)
		}
		seen[s] = v
	}
}
