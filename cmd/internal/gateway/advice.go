package gateway

import (
	"fmt"
	"strings"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike"
)

// windows is what makes Windows offer what we take by default, for IKE and for ESP.
const windows = "in PowerShell there: Set-VpnConnectionIPsecConfiguration NAME -EncryptionMethod AES256 -IntegrityCheckMethod SHA256 -DHGroup ECP256" +
	" -CipherTransformConstants GCMAES256 -AuthenticationTransformConstants GCMAES256 -PfsGroup None"

// plainAdvice is what can be done by rule, where that depends on nothing else.
var plainAdvice = map[string]string{
	"own_identity":     "set the remote identity at the peer to ours, or local.id here to the one it asks for",
	"no_proof":         "it wants EAP or a certificate, and only pre-shared keys are supported so far",
	"not_unique":       "unique: replace would take the new one",
	"share_sas":        "max_sas allows more",
	"share_leases":     "max_leases allows more",
	"no_place":         "xdp.capacity allows more",
	"not_asked":        "have the peer ask for one (vips = 0.0.0.0 in swanctl.conf), or remove pools from the connection",
	"no_encapsulation": "have the peer force UDP encapsulation (encap = yes in swanctl.conf)",
}

// peerAdvice is the same of what peers say.
var peerAdvice = map[string]string{
	"AUTHENTICATION_FAILED":    "its log has the reason: an identity or the secret differs there",
	"NO_PROPOSAL_CHOSEN":       "the two sides need one proposal in common",
	"TS_UNACCEPTABLE":          "local_ts here must fit its remote_ts, and remote_ts its local_ts",
	"INTERNAL_ADDRESS_FAILURE": "its pool is used up, or it has none for us",
	"FAILED_CP_REQUIRED":       "set vips: [0.0.0.0]",
}

// adviser says what an operator of this configuration can do about a refusal.
func adviser(c *config.Config) func(ike.Refusal) string {
	return func(r ike.Refusal) string {
		if r.By == "peer" {
			return peerAdvice[r.Notify] + keyOf(c, r)
		}
		if r.Initiator {
			return initiatorAdvice(c, r)
		}
		switch r.Rule {
		case "suite":
			return suiteAdvice(r)
		case "esp_suite":
			return espAdvice(r)
		case "identity":
			return identityAdvice(r)
		case "address":
			return "remote.addresses says where it may call from; without that it may call from anywhere"
		case "no_secret":
			return "add one to secrets"
		case "secret":
			return "compare the two keys" + keyOf(c, r)
		case "no_address":
			return "enlarge pools." + strings.Join(r.Pools, ".addresses or pools.") + ".addresses"
		}
		return plainAdvice[r.Rule]
	}
}

// initiatorAdvice is about an answer that we do not take.
func initiatorAdvice(c *config.Config, r ike.Refusal) string {
	switch r.Rule {
	case "identity":
		return "set remote.id to that, if it is the right peer"
	case "secret":
		return "compare the two keys" + keyOf(c, r)
	case "no_proof":
		return plainAdvice[r.Rule]
	}
	return ""
}

func identityAdvice(r ike.Refusal) string {
	if r.ClaimedKind != "" {
		return "no remote.id can match that: the peer needs another identity"
	}
	return fmt.Sprintf(`a connection with remote.id: "%s" would take it`, r.Claimed)
}

func suiteAdvice(r ike.Refusal) string {
	switch {
	case r.Claimed != "":
		return "give its connection a proposal that it offers"
	case all(r.Offer, func(p string) bool { return strings.HasSuffix(p, "-modp1024") }):
		return "modp1024 alone is Windows' default, and too weak: " + windows +
			"; or there the registry value RasMan\\Parameters\\NegotiateDH2048_AES256 = 1, and here the proposal aes256-sha256-modp2048"
	}
	return ""
}

func espAdvice(r ike.Refusal) string {
	if all(r.Offer, func(p string) bool { return strings.Contains(p, "-sha1") }) {
		return "ESP with HMAC-SHA1, which is Windows' default, is not offered here: " + windows
	}
	return ""
}

func all(list []string, is func(string) bool) bool {
	for _, s := range list {
		if !is(s) {
			return false
		}
	}
	return len(list) > 0
}

// keyOf says which key is ours.
func keyOf(c *config.Config, r ike.Refusal) string {
	for _, s := range c.Secrets {
		if s.ID.String() == r.Secret && s.Local.String() == r.SecretLocal {
			return fmt.Sprintf("; ours is %s, of %d bytes without the line's end", s.File, len(s.PSK.Bytes()))
		}
	}
	return ""
}
