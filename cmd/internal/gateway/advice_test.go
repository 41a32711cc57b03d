package gateway

import (
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike"
)

// TestAdvice: what an operator is told to do about a refusal.
func TestAdvice(t *testing.T) {
	pattern := func(s string) ike.Pattern {
		p, err := ike.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	vpn, _ := pattern("vpn.example.org").Exact()
	c := &config.Config{Secrets: []config.Secret{{ID: pattern("anna@example.org"), File: "secrets/anna.psk"},
		{ID: pattern("*@example.net"), File: "secrets/net.psk"}, {ID: pattern("bob@example.net"), File: "secrets/bob.psk"},
		{ID: pattern("bob@example.net"), Local: vpn, File: "secrets/vpn-bob.psk"}}}
	advise := adviser(c)
	winIKE := []string{"3des-sha1-modp1024", "aes256-sha1-modp1024", "aes256-sha384-modp1024"}
	for name, tt := range map[string]struct {
		r    ike.Refusal
		want string // it has; "": there is none
	}{
		"Windows, IKE":            {ike.Refusal{Rule: "suite", Offer: winIKE}, "modp1024 alone is Windows' default, and too weak: in PowerShell there: Set-VpnConnectionIPsecConfiguration"},
		"Windows' registry":       {ike.Refusal{Rule: "suite", Offer: winIKE}, "NegotiateDH2048_AES256 = 1"},
		"another's IKE":           {ike.Refusal{Rule: "suite", Offer: append(winIKE, "aes256-sha1-modp2048")}, ""},
		"nothing offered":         {ike.Refusal{Rule: "suite"}, ""},
		"agreed before":           {ike.Refusal{Rule: "suite", Claimed: "anna@example.org"}, "give its connection a proposal that it offers"},
		"Windows, ESP":            {ike.Refusal{Rule: "esp_suite", Offer: []string{"aes256-sha1", "3des-sha1"}}, "ESP with HMAC-SHA1, which is Windows' default, is not offered here"},
		"Windows' constants":      {ike.Refusal{Rule: "esp_suite", Offer: []string{"aes256-sha1"}}, "-CipherTransformConstants GCMAES256 -AuthenticationTransformConstants GCMAES256"},
		"another's ESP":           {ike.Refusal{Rule: "esp_suite", Offer: []string{"aes256-sha1", "aes128gcm16"}}, ""},
		"wrong secret":            {ike.Refusal{Rule: "secret", Secret: "anna@example.org"}, "compare the two keys; ours is secrets/anna.psk, of 0 bytes without the line's end"},
		"a key for many":          {ike.Refusal{Rule: "secret", Claimed: "bob@example.net", Secret: "*@example.net"}, "secrets/net.psk"},
		"a key of another of us":  {ike.Refusal{Rule: "secret", Secret: "bob@example.net", SecretLocal: "vpn.example.org"}, "secrets/vpn-bob.psk"},
		"our call, wrong secret":  {ike.Refusal{Rule: "secret", Secret: "anna@example.org", Initiator: true}, "secrets/anna.psk"},
		"his identity":            {ike.Refusal{Rule: "identity", Claimed: "carl@example.org"}, `a connection with remote.id: "carl@example.org" would take it`},
		"what nobody can be":      {ike.Refusal{Rule: "identity", Claimed: "CN=anna", ClaimedKind: "ID_DER_ASN1_DN"}, "no remote.id can match that"},
		"our call, his identity":  {ike.Refusal{Rule: "identity", Claimed: "carl@example.org", Initiator: true}, "set remote.id to that"},
		"our identity":            {ike.Refusal{Rule: "own_identity"}, "local.id here"},
		"EAP":                     {ike.Refusal{Rule: "no_proof"}, "only pre-shared keys"},
		"not asked":               {ike.Refusal{Rule: "not_asked"}, "vips = 0.0.0.0 in swanctl.conf"},
		"no address":              {ike.Refusal{Rule: "no_address", Pools: []string{"office"}}, "enlarge pools.office.addresses"},
		"our call, no address":    {ike.Refusal{Rule: "no_address", Initiator: true}, ""},
		"SAs":                     {ike.Refusal{Rule: "share_sas"}, "max_sas"},
		"selectors speak":         {ike.Refusal{Rule: "selectors"}, ""},
		"the peer: secret":        {ike.Refusal{By: "peer", Notify: "AUTHENTICATION_FAILED", Secret: "anna@example.org"}, "differs there; ours is secrets/anna.psk"},
		"the peer: configuration": {ike.Refusal{By: "peer", Notify: "FAILED_CP_REQUIRED"}, "set vips: [0.0.0.0]"},
		"the peer: for a while":   {ike.Refusal{By: "peer", Notify: "TEMPORARY_FAILURE"}, ""},
	} {
		got := advise(tt.r)
		if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
