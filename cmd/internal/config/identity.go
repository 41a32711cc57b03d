package config

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// IDKind is what an identity is.
type IDKind string

// The kinds of identities, by the names of RFC 7296 §3.5 where it has them.
const (
	IDAny     IDKind = "any" // only as a pattern
	IDFQDN    IDKind = "fqdn"
	IDEmail   IDKind = "email"
	IDAddress IDKind = "address" // IPv4 or IPv6
	IDKeyID   IDKind = "keyid"
)

const maxID = 128

// ID is an identity, or a pattern of identities: *.example.org is every name
// that ends in .example.org, however deep; *@example.org every mailbox of that
// domain and of none below it; %any everybody. Names and mailboxes compare
// without regard to case, key ids byte by byte.
type ID struct {
	Kind    IDKind
	Value   string // for a pattern with its *; for a key id its bytes; for IDAny empty
	Pattern bool
}

// String is the identity as a config file has it.
func (id ID) String() string {
	switch id.Kind {
	case IDAny:
		return "%any"
	case IDKeyID:
		if strings.ContainsFunc(id.Value, func(r rune) bool { return !isGraphic(r) }) || id.Value[0] == '#' {
			return "keyid:#" + hex.EncodeToString([]byte(id.Value))
		}
		return "keyid:" + id.Value
	}
	return id.Value
}

// MarshalText gives the identity as a config file has it.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// same is equal for identities that no comparison tells apart.
func (id ID) same() string {
	if id.Kind == IDKeyID {
		return string(id.Kind) + " " + id.Value
	}
	return string(id.Kind) + " " + strings.ToLower(id.Value)
}

// eachWider calls f with the same() of every pattern, other than id itself,
// that matches all that id does. There is one for each dot at most.
func (id ID) eachWider(f func(pattern string)) {
	name := strings.ToLower(id.Value)
	switch id.Kind {
	case IDAny:
		return
	case IDEmail:
		if !id.Pattern {
			f(string(IDEmail) + " *" + name[strings.IndexByte(name, '@'):])
		}
	case IDFQDN:
		name = strings.TrimPrefix(name, "*.")
		for dot := strings.IndexByte(name, '.'); dot >= 0; dot = strings.IndexByte(name, '.') {
			name = name[dot+1:]
			f(string(IDFQDN) + " *." + name)
		}
	}
	f(anybody)
}

var anybody = ID{Kind: IDAny, Pattern: true}.same()

// identity reads an identity.
func (v value) identity() (ID, bool) {
	s, ok := v.text()
	if !ok {
		return ID{}, false
	}
	id, complaint := parseID(s)
	if complaint != "" {
		v.fail("%s", complaint)
	}
	return id, complaint == ""
}

func parseID(s string) (id ID, complaint string) {
	if len(s) > maxID {
		return ID{}, fmt.Sprintf("an identity of %d bytes; at most %d are supported", len(s), maxID)
	}
	if text, found := strings.CutPrefix(s, "keyid:"); found {
		return parseKeyID(text)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return parseAddressID(a)
	}
	switch {
	case s == "%any":
		return ID{Kind: IDAny, Pattern: true}, ""
	case s == "*":
		return ID{}, `"*" is not an identity; write "%any" for everybody`
	case strings.HasPrefix(s, "@"):
		return ID{}, fmt.Sprintf("%s: names are written without a leading @; write %s", quoted(s), quoted(s[1:]))
	case strings.Contains(s, "="):
		return ID{}, quoted(s) + ": distinguished names are not available yet; they come with certificates"
	case strings.Contains(s, "@"):
		return parseEmail(s)
	}
	return parseFQDN(s)
}

// parseKeyID takes text, or bytes in hex behind a #.
func parseKeyID(s string) (id ID, complaint string) {
	value := s
	if digits, found := strings.CutPrefix(s, "#"); found {
		b, err := hex.DecodeString(digits)
		if err != nil {
			return ID{}, quoted("keyid:"+s) + ": behind # an even number of hex digits is needed"
		}
		value = string(b)
	}
	if value == "" {
		return ID{}, quoted("keyid:"+s) + " is empty"
	}
	return ID{Kind: IDKeyID, Value: value}, ""
}

func parseAddressID(a netip.Addr) (id ID, complaint string) {
	if a.Zone() != "" || a.Is4In6() || a.IsUnspecified() {
		return ID{}, a.String() + " is not an address that identifies anybody"
	}
	return ID{Kind: IDAddress, Value: a.String()}, ""
}

func parseEmail(s string) (id ID, complaint string) {
	mailbox, domain, _ := strings.Cut(s, "@")
	pattern := mailbox == "*"
	badMailbox := strings.ContainsFunc(mailbox, func(r rune) bool { return !isGraphic(r) || r == '*' })
	switch {
	case mailbox == "", badMailbox && !pattern:
		return ID{}, quoted(s) + ` is not a mailbox; write it like anna@example.org or "*@example.org"`
	case !isName(domain):
		return ID{}, fmt.Sprintf("%s: %s is not a domain name", quoted(s), quoted(domain))
	}
	return ID{Kind: IDEmail, Value: s, Pattern: pattern}, ""
}

func parseFQDN(s string) (id ID, complaint string) {
	name, pattern := strings.CutPrefix(s, "*.")
	switch {
	case strings.HasSuffix(s, "."):
		return ID{}, quoted(s) + ": write the name without the dot at its end"
	case !isName(name):
		return ID{}, quoted(s) + " is no identity: neither a name (vpn.example.org, " +
			`"*.example.org") nor a mailbox, an address, keyid:… or "%any"`
	case looksNumeric(name):
		return ID{}, quoted(s) + " looks like an address and is not one"
	}
	return ID{Kind: IDFQDN, Value: s, Pattern: pattern}, ""
}

// isName is true for a DNS name. Anything beyond ASCII is refused: two names
// that look alike must not be two.
func isName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		bad := strings.ContainsFunc(label, func(r rune) bool { return !isAlphanumeric(r) && r != '-' && r != '_' })
		if bad || label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}

// looksNumeric is true for 10.0.0.256: no name ends in a number.
func looksNumeric(name string) bool {
	_, err := strconv.Atoi(name[strings.LastIndexByte(name, '.')+1:])
	return err == nil && strings.Contains(name, ".")
}

func isGraphic(r rune) bool { return r > ' ' && r < 0x7f }

// idSet answers which identities some member matches, in a time that does not
// grow with its size.
type idSet struct {
	members map[string]Pos      // by same()
	within  map[string]struct{} // patterns that some member falls under
}

func newIDSet() idSet {
	return idSet{members: map[string]Pos{}, within: map[string]struct{}{}}
}

// add puts in a member, unless it is there: then it returns where it was given.
func (s idSet) add(id ID, at Pos) (first Pos, twice bool) {
	if first, twice = s.members[id.same()]; twice {
		return first, true
	}
	s.members[id.same()] = at
	id.eachWider(func(pattern string) { s.within[pattern] = struct{}{} })
	return Pos{}, false
}

// serves is true if a member matches some identity that id matches.
func (s idSet) serves(id ID) bool {
	_, found := s.members[id.same()]
	_, wider := s.within[id.same()]
	found = found || wider
	id.eachWider(func(pattern string) {
		_, matches := s.members[pattern]
		found = found || matches
	})
	return found
}
