package policy

import (
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Pattern is what an identity must match: exactly one identity; all of a domain,
// *@example.org for its mailboxes and none below it, *.example.org for its names,
// however deep; or %any. It is comparable, and two that are equal match the same.
type Pattern struct {
	exact  ID     // of a suffix its kind alone
	suffix string // of the identity's bytes, "" for none
	any    bool
}

// Anybody matches every identity.
var Anybody = Pattern{any: true}

// Only is the pattern of one identity.
func Only(id ID) Pattern { return Pattern{exact: id} }

// ParsePattern reads a pattern; without a wildcard it is ParseID.
func ParsePattern(s string) (Pattern, error) {
	switch {
	case s == "%any":
		return Anybody, nil
	case s == "*":
		return Pattern{}, errors.New(`"*" is not an identity; write "%any" for everybody`)
	case len(s) > MaxID:
	case strings.HasPrefix(s, "*.") && !looksNumeric(s):
		name, err := parseName(s[2:])
		return Pattern{exact: ID{Kind: wire.IDFQDN}, suffix: "." + name.Data}, err
	case strings.HasPrefix(s, "*@"):
		if IsName(s[2:]) {
			return Pattern{exact: ID{Kind: wire.IDRFC822}, suffix: strings.ToLower(s[1:])}, nil
		}
		return Pattern{}, fmt.Errorf("%s: %s is not a domain name", quoted(s), quoted(s[2:]))
	}
	id, err := ParseID(s)
	return Only(id), err
}

// Exact is the one identity that p stands for, if it is no wildcard.
func (p Pattern) Exact() (ID, bool) { return p.exact, !p.any && p.suffix == "" }

// Match reports whether p allows id.
func (p Pattern) Match(id ID) bool { return Only(id).Within(p) }

// Within reports whether other allows every identity that p does.
func (p Pattern) Within(other Pattern) bool {
	for wider := range p.Wider {
		if wider == other {
			return true
		}
	}
	return false
}

// Wider yields p itself and the patterns that allow all that p does, the closest
// first. There is one for each dot at most, so what goes by them costs the same
// for ten connections and for a million. What came as a name or a mailbox and is
// none, like a@b@example.org, belongs to no domain.
func (p Pattern) Wider(yield func(Pattern) bool) {
	if !yield(p) || p.any {
		return
	}
	text := p.suffix
	if p.exact.written() {
		text = p.exact.Data
	}
	for suffix := range suffixes(text) {
		if !yield(Pattern{exact: ID{Kind: p.exact.Kind}, suffix: suffix}) {
			return
		}
	}
	yield(Anybody)
}

// suffixes yields the ends of a name or mailbox that patterns go by, the longest
// first. Something must stand before each.
func suffixes(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if at := strings.LastIndexByte(text, '@'); at >= 0 {
			if at > 0 {
				yield(text[at:])
			}
			return
		}
		for i := 1; i < len(text); i++ {
			if text[i] == '.' && !yield(text[i:]) {
				return
			}
		}
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

// MarshalText is String.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
