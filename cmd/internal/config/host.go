package config

import (
	"net/netip"
	"strings"

	"github.com/ikepulse/ikepulse/ike"
)

// host is where a peer can be called: an address, or a name.
func (v value) host() (Host, bool) {
	s, ok := v.text()
	if !ok {
		return Host{}, false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return v.literalHost()
	}
	complaint := badHostName(s)
	if complaint != "" {
		v.fail("%s", complaint)
	}
	return Host{Name: s}, complaint == ""
}

func (v value) literalHost() (Host, bool) {
	a, ok := v.address()
	if !ok {
		return Host{}, false
	}
	complaint := v.l.goodRemoteAddress(a)
	if complaint != "" {
		v.fail("%s", complaint)
	}
	return Host{Addr: a}, complaint == ""
}

// maxHostName is the longest name of DNS, written without the final dot. RFC 1035
// §2.3.4
const maxHostName = 253

// badHostName says why a text is not the name of a host, RFC 1123 §2.1; "" if it
// is one.
func badHostName(s string) string {
	before, after, colon := strings.Cut(s, ":")
	switch {
	case strings.Contains(s, "/"):
		return quoted(s) + " is a prefix; an address or a name is needed here"
	case colon && !strings.Contains(after, ":") && before != "" && isNumber(after):
		return quoted(s) + ": a port has no place here; IKE uses 500 and 4500"
	case strings.HasSuffix(s, "."):
		return quoted(s) + ": write the name without the dot at its end"
	case numericEnd(s):
		return quoted(s) + " looks like an IP address and is not one"
	case !isHostName(s):
		return quoted(s) + " is neither an IP address nor the name of a host"
	}
	return ""
}

// isHostName reports whether s is a name that DNS has for hosts, RFC 1123 §2.1.
func isHostName(s string) bool { return len(s) <= maxHostName && ike.IsName(s) && !hyphenAtEdge(s) }

func isNumber(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// numericEnd is true for 203.0.113.777 and 203.0.113.7O, too: no top-level domain
// begins with a digit.
func numericEnd(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	return isNumber(last) || strings.Contains(s, ".") && last != "" && isNumber(last[:1])
}

func hyphenAtEdge(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return true
		}
	}
	return false
}
