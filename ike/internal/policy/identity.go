package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// MaxID is the longest identity in bytes, configured or received: it has a fixed
// place in an SA's record, and no mail address or host name is longer.
const MaxID = 128

// ID is an identity: its kind and its bytes, lower case where the kind is
// compared without case. It is comparable, so that it can be a map's key.
type ID struct {
	Kind wire.IDType
	Data string
}

const hexMark = "#"

// ParseID reads an identity as a configuration has it: an address, a mail
// address, a host name, keyid:TEXT, or keyid:#HEX for bytes that are no text.
func ParseID(s string) (ID, error) {
	if text, ok := strings.CutPrefix(s, "keyid:"); ok {
		return parseKeyID(text)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return parseAddress(a)
	}
	switch {
	case s == "":
		return ID{}, errors.New("the identity is empty")
	case len(s) > MaxID:
		return ID{}, fmt.Errorf("an identity of %d bytes; at most %d are supported", len(s), MaxID)
	case strings.HasPrefix(s, "@"):
		return ID{}, fmt.Errorf("%s: names are written without a leading @; write %s", quoted(s), quoted(s[1:]))
	case strings.Contains(s, "="):
		return ID{}, fmt.Errorf("%s: distinguished names are not available yet; they come with certificates", quoted(s))
	case strings.Contains(s, "@"):
		return parseMailbox(s)
	}
	return parseName(s)
}

func parseKeyID(s string) (ID, error) {
	if digits, ok := strings.CutPrefix(s, hexMark); ok {
		b, err := hex.DecodeString(digits)
		if err != nil {
			return ID{}, fmt.Errorf("%s: behind # an even number of hex digits is needed", quoted("keyid:"+s))
		}
		s = string(b)
	}
	switch {
	case s == "":
		return ID{}, errors.New("the key id is empty")
	case len(s) > MaxID:
		return ID{}, fmt.Errorf("a key id of %d bytes; at most %d are supported", len(s), MaxID)
	}
	return ID{wire.IDKeyID, s}, nil
}

func parseAddress(a netip.Addr) (ID, error) {
	switch {
	case a.Zone() != "" || a.Is4In6() || a.IsUnspecified():
		return ID{}, fmt.Errorf("%v is not an address that identifies anybody", a)
	case a.Is4():
		return ID{wire.IDIPv4, string(a.AsSlice())}, nil
	}
	return ID{wire.IDIPv6, string(a.AsSlice())}, nil
}

func parseMailbox(s string) (ID, error) {
	mailbox, domain, _ := strings.Cut(s, "@")
	switch {
	case !plain(mailbox) || strings.Contains(mailbox, "*"):
		return ID{}, fmt.Errorf(`%s is not a mailbox; write it like anna@example.org or "*@example.org"`, quoted(s))
	case !IsName(domain):
		return ID{}, fmt.Errorf("%s: %s is not a domain name", quoted(s), quoted(domain))
	}
	return ID{wire.IDRFC822, strings.ToLower(s)}, nil
}

func parseName(s string) (ID, error) {
	switch {
	case strings.HasSuffix(s, "."):
		return ID{}, fmt.Errorf("%s: write the name without the dot at its end", quoted(s))
	case !IsName(s):
		return ID{}, fmt.Errorf(`%s is no identity: neither a name (vpn.example.org, "*.example.org") nor a mailbox, an address, keyid:… or "%%any"`, quoted(s))
	case looksNumeric(s):
		return ID{}, fmt.Errorf("%s looks like an address and is not one", quoted(s))
	}
	return ID{wire.IDFQDN, strings.ToLower(s)}, nil
}

// IsName reports whether s is a DNS name. Anything beyond ASCII is refused: two
// names that look alike must not be two.
func IsName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return !inName(r) }) {
			return false
		}
	}
	return true
}

func inName(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// looksNumeric reports whether a name is like 10.0.0.256: none ends in a number.
func looksNumeric(name string) bool {
	behind := strings.LastIndexByte(name, '.') + 1
	return behind > 0 && behind < len(name) && strings.Trim(name[behind:], "0123456789") == ""
}

// plain reports whether s is printable ASCII without spaces: nothing in it can
// forge a log line or hide in a terminal.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// quoted shows text that may hold anything.
func quoted(s string) string {
	const longest = 140
	if len(s) > longest {
		return strconv.Quote(s[:longest]) + "…"
	}
	return strconv.Quote(s)
}

// FromPayload is the identity that a peer claims. known is false for one that is
// too long or whose bytes do not fit its kind: nobody is that. Only what is ASCII
// loses its case: the Kelvin sign is no k.
func FromPayload(p *wire.ID) (id ID, known bool) {
	id = ID{p.Kind, string(p.Data)}
	switch p.Kind {
	case wire.IDIPv4:
		known = len(id.Data) == 4
	case wire.IDIPv6:
		known = len(id.Data) == 16
	case wire.IDFQDN, wire.IDRFC822:
		if known = plain(id.Data); known {
			id.Data = strings.ToLower(id.Data)
		}
	case 0, wire.IDNull: // reserved; nobody in particular, RFC 7619 §2.2
	default:
		known = id.Data != ""
	}
	return id, known && len(id.Data) <= MaxID
}

// Payload is the identity as it goes over the wire.
func (id ID) Payload(t wire.PayloadType) *wire.ID {
	return &wire.ID{T: t, Kind: id.Kind, Data: []byte(id.Data)}
}

// Addr is the address that an identity is, if it is one.
func (id ID) Addr() (a netip.Addr, ok bool) {
	if id.Kind != wire.IDIPv4 && id.Kind != wire.IDIPv6 {
		return a, false
	}
	a, ok = netip.AddrFromSlice([]byte(id.Data))
	return a, ok && a.Is4() == (id.Kind == wire.IDIPv4)
}

// written reports whether the bytes of an identity are what a configuration has
// for it: a name or a mailbox that is one.
func (id ID) written() bool {
	same, _ := ParseID(id.Data) // of what is none, nobody
	return same == id
}

// Compare orders identities in one way at both ends of a tunnel, since it goes by
// what stands on the wire.
func (id ID) Compare(other ID) int {
	if id.Kind != other.Kind {
		return int(id.Kind) - int(other.Kind)
	}
	return strings.Compare(id.Data, other.Data)
}

// String is the identity as ParseID reads it, safe for a log line: it is also the
// name under which the identity is known, so no two have the same. What cannot be
// written, such as a distinguished name or an address that came as a host name,
// is shown as kind and bytes.
func (id ID) String() string {
	switch id.Kind {
	case 0:
		if id.Data == "" {
			return ""
		}
	case wire.IDIPv4, wire.IDIPv6:
		if a, ok := id.Addr(); ok {
			return a.String()
		}
	case wire.IDFQDN, wire.IDRFC822:
		if id.written() {
			return id.Data
		}
	case wire.IDKeyID:
		if plain(id.Data) && !strings.HasPrefix(id.Data, hexMark) {
			return "keyid:" + id.Data
		}
		return "keyid:" + hexMark + hex.EncodeToString([]byte(id.Data))
	}
	return fmt.Sprintf("id%d:%s", id.Kind, hex.EncodeToString([]byte(id.Data)))
}

// MarshalText is String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }
