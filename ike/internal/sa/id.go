package sa

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// maxID is the longest identity that is accepted, configured or received: it
// has a fixed place in the record, and no mail address or host name is longer.
const maxID = 128

// ID is an identity: its kind and its bytes, lower case where the kind is
// compared without case. It is comparable, so that it can be a map's key.
type ID struct {
	Kind wire.IDType
	Data string
}

// ParseID reads an identity as it is written in a configuration: an address, a
// mail address, keyid:TEXT, or else a host name (a leading @ is dropped).
func ParseID(s string) (ID, error) {
	switch {
	case s == "" || s == "@":
		return ID{}, errors.New("the identity is empty")
	case len(s) > maxID:
		return ID{}, fmt.Errorf("the identity has %d bytes, at most %d are allowed", len(s), maxID)
	}
	if text, ok := strings.CutPrefix(s, "keyid:"); ok {
		return ID{wire.IDKeyID, text}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return addrID(a), nil
	}
	name := strings.TrimPrefix(s, "@")
	if !plain(name) {
		return ID{}, errors.New("the identity has a space or a character that cannot be printed")
	}
	if strings.Contains(name, "@") {
		return ID{wire.IDRFC822, strings.ToLower(name)}, nil
	}
	return ID{wire.IDFQDN, strings.ToLower(name)}, nil
}

func addrID(a netip.Addr) ID {
	if a = a.Unmap(); a.Is4() {
		return ID{wire.IDIPv4, string(a.AsSlice())}
	}
	return ID{wire.IDIPv6, string(a.WithZone("").AsSlice())}
}

// idOf is the identity in a payload; ok is false for one that is too long or
// whose bytes do not fit its kind.
func idOf(p *wire.ID) (id ID, ok bool) {
	id = ID{p.Kind, string(p.Data)}
	switch p.Kind {
	case wire.IDIPv4:
		ok = len(id.Data) == 4
	case wire.IDIPv6:
		ok = len(id.Data) == 16
	case wire.IDFQDN, wire.IDRFC822:
		id.Data = strings.ToLower(id.Data)
		ok = plain(id.Data)
	default:
		ok = id.Data != ""
	}
	return id, ok && len(id.Data) <= maxID
}

func (id ID) payload(t wire.PayloadType) *wire.ID {
	return &wire.ID{T: t, Kind: id.Kind, Data: []byte(id.Data)}
}

// String is the identity as a person writes it, safe for a log line: it is
// also the canonical name under which the identity is known, so no two have the
// same. What a person would write for another kind, such as a host name with an
// @ or an address as a host name, is shown as kind and bytes.
func (id ID) String() string {
	switch id.Kind {
	case 0:
		return ""
	case wire.IDIPv4, wire.IDIPv6:
		a, _ := netip.AddrFromSlice([]byte(id.Data))
		return a.String()
	case wire.IDFQDN, wire.IDRFC822:
		if id.usual() {
			return id.Data
		}
	case wire.IDKeyID:
		if plain(id.Data) && id.Data[0] != '"' {
			return "keyid:" + id.Data
		}
		return "keyid:" + strconv.QuoteToASCII(id.Data)
	}
	return fmt.Sprintf("id%d:%s", id.Kind, hex.EncodeToString([]byte(id.Data)))
}

// usual tells that a name looks like its own kind, and like no other.
func (id ID) usual() bool {
	same, err := ParseID(id.Data)
	return err == nil && same == id && !strings.Contains(id.Data, ":")
}

// plain tells that s is printable ASCII without spaces: nothing in it can
// forge a log line or hide in a terminal.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// Pattern is what an identity must match: exactly one identity, all of a
// domain ("*@example.org", "*.example.org"), or any ("%any").
type Pattern struct {
	exact  ID
	suffix string // of Data, for kind exact.Kind
	any    bool
}

// ParsePattern reads a pattern; without a wildcard it is ParseID.
func ParsePattern(s string) (Pattern, error) {
	if s == "%any" {
		return Pattern{any: true}, nil
	}
	rest, wild := strings.CutPrefix(s, "*")
	if !wild {
		id, err := ParseID(s)
		return Pattern{exact: id}, err
	}
	kind := wire.IDFQDN
	if strings.HasPrefix(rest, "@") {
		kind = wire.IDRFC822
	} else if !strings.HasPrefix(rest, ".") {
		return Pattern{}, fmt.Errorf("%q: a wildcard stands for all before @DOMAIN or .DOMAIN, or write %%any", s)
	}
	if len(rest) < 2 || !plain(rest) || strings.ContainsAny(rest, "*") || len(s) > maxID {
		return Pattern{}, fmt.Errorf("%q: not a domain behind the wildcard", s)
	}
	return Pattern{exact: ID{Kind: kind}, suffix: strings.ToLower(rest)}, nil
}

// Exact is the one identity that p stands for, if it is no wildcard.
func (p Pattern) Exact() (ID, bool) { return p.exact, !p.any && p.suffix == "" }

// Match tells whether p allows id.
func (p Pattern) Match(id ID) bool {
	switch {
	case p.any:
		return true
	case p.suffix != "":
		return id.Kind == p.exact.Kind && len(id.Data) > len(p.suffix) && strings.HasSuffix(id.Data, p.suffix)
	default:
		return id == p.exact
	}
}

func (p Pattern) String() string {
	switch {
	case p.any:
		return "%any"
	case p.suffix != "":
		return "*" + p.suffix
	default:
		return p.exact.String()
	}
}
