package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// text is a single value as it is written: 010, off and 1.10 stay themselves,
// whatever YAML would make of them.
func (v value) text() (string, bool) {
	if v.n.Kind != yaml.ScalarNode {
		v.fail("must be a single value, not %s", kind(v.n))
		return "", false
	}
	if v.n.Value == "" {
		v.fail("must not be empty")
		return "", false
	}
	return v.n.Value, true
}

// choice is one of a few words, or "" if it is not.
func (v value) choice(words []string, notYet ...string) string {
	s, ok := v.text()
	switch {
	case !ok:
		return ""
	case slices.Contains(words, s):
		return s
	case slices.Contains(notYet, s):
		v.fail("%s is not available yet; write %s", s, strings.Join(words, " or "))
		return ""
	}
	near := v.l.similar(s, words)
	switch {
	case near != "":
		v.fail("%s is not known; did you mean %q?", quoted(s), near)
	case len(words) == 1:
		v.fail("%s is not known; write %s", quoted(s), words[0])
	default:
		v.fail("%s is not one of %s", quoted(s), strings.Join(words, ", "))
	}
	return ""
}

// whole is a number of things, or 0 if it is not.
func (v value) whole(low, high int) int {
	s, ok := v.text()
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil || s[0] == '+':
		v.fail("must be a whole number from %d to %d, not %s", low, high, quoted(s))
	case n < low || n > high:
		v.fail("must be from %d to %d, not %d", low, high, n)
	default:
		return n
	}
	return 0
}

// wholeOrAuto is a number of things, or 0 for "auto".
func (v value) wholeOrAuto(low, high int) int {
	if v.n.Value == "auto" {
		return 0
	}
	return v.whole(low, high)
}

// number may have a fraction. It is 0 if it is none.
func (v value) number(low, high float64) float64 {
	s, ok := v.text()
	if !ok {
		return 0
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= low && f <= high) || strings.ContainsAny(s, "xXpP_eE") {
		v.fail("must be a number from %v to %v, not %s", low, high, quoted(s))
		return 0
	}
	return f
}

// duration needs its unit: 30 could be anything. It is 0 if it is none.
func (v value) duration(low, high time.Duration) time.Duration {
	s, ok := v.text()
	if !ok {
		return 0
	}
	if _, err := strconv.ParseUint(s, 10, 64); err == nil {
		v.fail("%s has no unit; write %ss", s, s)
		return 0
	}
	d, ok := parseDuration(s)
	switch {
	case !ok:
		v.fail("%s is not a duration; write it like 30s, 10m or 4h", quoted(s))
	case d < low || d > high:
		v.fail("must be from %s to %s, not %s", brief(low), brief(high), brief(d))
	default:
		return d
	}
	return 0
}

func parseDuration(s string) (time.Duration, bool) {
	if s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	if days, found := strings.CutSuffix(s, "d"); found {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}

// brief is a duration without the zero units that time.Duration appends.
func brief(d time.Duration) string {
	s := d.String()
	if rest, found := strings.CutSuffix(s, "m0s"); found {
		s = rest + "m"
	}
	if rest, found := strings.CutSuffix(s, "h0m"); found {
		s = rest + "h"
	}
	return s
}

// address is one IP address.
func (v value) address() (netip.Addr, bool) {
	s, ok := v.text()
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err == nil && a.Is4In6():
		v.fail("%s is an IPv4 address in IPv6 form; write %s", s, a.Unmap())
	case err == nil && a.Zone() != "":
		v.fail("%s: addresses with a zone are not supported; write %s", printable(s), a.WithZone(""))
	case err == nil:
		return a, true
	case strings.Contains(s, "/"):
		v.fail("%s is a prefix; an address is needed here", quoted(s))
	default:
		v.fail("%s is not an IP address", quoted(s))
	}
	return netip.Addr{}, false
}

// prefix is an address range, written without host bits.
func (v value) prefix() (netip.Prefix, bool) {
	s, ok := v.text()
	if !ok {
		return netip.Prefix{}, false
	}
	p, complaint := parsePrefix(s)
	if complaint != "" {
		v.fail("%s", complaint)
	}
	return p, complaint == ""
}

func parsePrefix(s string) (p netip.Prefix, complaint string) {
	p, err := netip.ParsePrefix(s)
	if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil && strings.Contains(s, "-"):
		return p, quoted(s) + ": ranges are not available yet; write prefixes"
	case err != nil:
		return p, quoted(s) + " is not a prefix; write it like 10.0.0.0/8"
	case p.Addr().Is4In6():
		return p, quoted(s) + " is IPv4 in IPv6 form; write it as IPv4"
	case p != p.Masked():
		return p, s + " has bits behind the prefix length; write " + p.Masked().String() + " or " + p.Addr().String()
	}
	return p, ""
}

// texts, distinct and checked by a function that returns a complaint or "".
func (v value) texts(most int, check func(string) string) []string {
	return distinct(v, most, func(item value) (string, bool) {
		s, ok := item.text()
		if !ok {
			return "", false
		}
		complaint := check(s)
		if complaint != "" {
			item.fail("%s", complaint)
		}
		return s, complaint == ""
	})
}

// addresses, distinct and checked by a function that returns a complaint or "".
func (v value) addresses(most int, check func(netip.Addr) string) []netip.Addr {
	return distinct(v, most, func(item value) (netip.Addr, bool) {
		a, ok := item.address()
		if !ok {
			return a, false
		}
		complaint := check(a)
		if complaint != "" {
			item.fail("%s", complaint)
		}
		return a, complaint == ""
	})
}

// distinct reads a list of at most most different things.
func distinct[T comparable](v value, most int, read func(value) (T, bool)) []T {
	items := v.items()
	if len(items) > most {
		items[most].fail("more than %d are not supported", most)
		items = items[:most]
	}
	var out []T
	first := make(map[T]Pos, len(items))
	for _, item := range items {
		t, ok := read(item)
		if at, twice := first[t]; ok && twice {
			item.fail("%s is given twice; first at %s", printable(item.n.Value), at)
		} else if ok {
			first[t] = item.pos()
			out = append(out, t)
		}
	}
	return out
}

func isGraphic(r rune) bool { return r > ' ' && r < 0x7f }
