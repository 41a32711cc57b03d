package config

import (
	"strings"
)

// The domains of a pool go into one answer to a client, which should not need two
// datagrams.
const (
	maxDomains     = 16
	maxDomainBytes = 512
)

// readDomains reads what clients ask the pool's DNS servers for. RFC 8598
func (p *Pool) readDomains(v value) {
	bytes := 0
	p.Domains = distinct(v, maxDomains, func(item value) (string, bool) {
		s, ok := item.text()
		if !ok {
			return "", false
		}
		if bytes += len(s); bytes > maxDomainBytes && bytes-len(s) <= maxDomainBytes {
			item.fail("the domains have more than %d bytes together", maxDomainBytes)
		}
		complaint := badDomain(s)
		if complaint != "" {
			item.fail("%s", complaint)
		}
		return strings.ToLower(s), complaint == ""
	})
}

// badDomain says why a text is no domain of DNS; "" if it is one.
func badDomain(s string) string {
	sub, star := strings.CutPrefix(s, "*.")
	switch {
	case s == ".":
		return `"." is every name: leave the domains out, and clients ask for every name`
	case star && badDomain(sub) == "":
		return quoted(s) + ": a domain is meant with all that is below it; write " + quoted(sub)
	case strings.HasSuffix(s, "."):
		return quoted(s) + ": write the name without the dot at its end"
	case strings.HasPrefix(s, "."):
		return quoted(s) + ": write the name without the dot in front of it"
	case strings.ContainsFunc(s, func(r rune) bool { return r > 0x7f }):
		return quoted(s) + ": write the name in ASCII, as DNS has it (xn--…)"
	case numericEnd(s):
		return quoted(s) + " looks like an IP address; a domain is needed here"
	case !isHostName(s):
		return quoted(s) + " is not a domain of DNS"
	}
	return ""
}
