package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

var childKeys = block[Child]{
	{name: "local_ts", read: func(c *Child, v value) { c.LocalTS = v.selectors() }},
	{name: "remote_ts", read: func(c *Child, v value) { c.RemoteTS = v.selectors() }},
	{name: "esp_proposals", read: func(c *Child, v value) { c.ESPProposals = v.proposals(v.l.checks.ESPProposal) }},
	{name: "start_action", read: func(c *Child, v value) {
		c.StartAction = v.choice([]string{"none", "start"}, "trap")
	}},
	{name: "rekey_time", refuse: noRekeyYet},
	{name: "life_time", refuse: noRekeyYet},
	{name: "rand_time", refuse: noRekeyYet},
	{name: "close_action", refuse: notYet},
	{name: "dpd_action", refuse: "write dpd: {action: …} in the connection"},
	{name: "ah_proposals", refuse: notYet},
	{name: "mode", refuse: "always tunnel mode; leave it out"},
	{name: "updown", refuse: notYet},
}

// readChildren reads the one child that a connection has, so far.
func (c *Connection) readChildren(v value) {
	first := ""
	v.named("children", func(name string, v value) {
		switch {
		case first == name:
			v.failKey("given twice; first at %s", c.Children[0].Pos)
			return
		case first != "":
			v.failKey("a second child beside %s is not available yet: it takes a further exchange (CREATE_CHILD_SA)", first)
			return
		}
		first = name
		ch := Child{Name: name, Pos: v.keyPos(), StartAction: "none", RemoteTS: []Selector{anySelector(Selector{Dynamic: true})}}
		if v.plain() && childKeys.read(v, &ch) {
			ch.check(v)
		}
		c.Children = append(c.Children, ch)
	})
	if v.n.Kind == yaml.MappingNode && len(v.n.Content) == 0 {
		v.failKey("a connection needs a child")
	}
}

// check looks at both sides together.
func (c *Child) check(v value) {
	if v.lacks("local_ts") {
		v.failKey("local_ts is missing; say which addresses on our side the peer reaches")
	}
	if len(c.LocalTS) > 0 && len(c.RemoteTS) > 0 && !shareFamily(c.LocalTS, c.RemoteTS) {
		v.failKey("local_ts and remote_ts are not of one family, so no packet fits both")
	}
}

// shareFamily is true unless the families of the selectors are known to differ.
func shareFamily(a, b []Selector) bool {
	var v4, v6 [2]bool
	for side, list := range [][]Selector{a, b} {
		for _, s := range list {
			v4[side] = v4[side] || s.Dynamic || s.Prefix.Addr().Is4()
			v6[side] = v6[side] || s.Dynamic || s.Prefix.Addr().Is6()
		}
	}
	return v4[0] && v4[1] || v6[0] && v6[1]
}

func (v value) selectors() []Selector {
	return distinct(v, MaxSelectors, func(item value) (Selector, bool) {
		s, ok := item.text()
		if !ok {
			return Selector{}, false
		}
		sel, complaint := parseSelector(s)
		if complaint != "" {
			item.fail("%s", complaint)
		}
		return sel, complaint == ""
	})
}

func anySelector(s Selector) Selector {
	s.ToPort = 65535
	return s
}

// parseSelector takes a prefix, an address or dynamic, and behind it, in
// brackets, a protocol and maybe a port or a range of them.
func parseSelector(s string) (sel Selector, complaint string) {
	sel = anySelector(sel)
	base, rest, bracket := strings.Cut(s, "[")
	if bracket {
		inner, closed := strings.CutSuffix(rest, "]")
		if !closed {
			return sel, quoted(s) + " has no ] at its end"
		}
		if complaint = sel.restrict(inner); complaint != "" {
			return sel, quoted(s) + ": " + complaint
		}
	}
	if base == "dynamic" {
		sel.Dynamic = true
		return sel, ""
	}
	sel.Prefix, complaint = parsePrefix(base)
	if complaint == "" && sel.Prefix.Addr().IsMulticast() {
		complaint = quoted(base) + ": multicast is not supported"
	}
	return sel, complaint
}

var protocols = map[string]uint8{
	"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "ipv6-icmp": 58, "ospf": 89, "sctp": 132,
}

// restrict takes what stands in a selector's brackets.
func (sel *Selector) restrict(s string) (complaint string) {
	name, ports, hasPorts := strings.Cut(s, "/")
	number, err := strconv.ParseUint(name, 10, 8)
	proto, known := protocols[name]
	switch {
	case known:
		sel.Protocol = proto
	case err == nil && number > 0:
		sel.Protocol = uint8(number)
	default:
		return quoted(name) + " is not a protocol; write tcp, udp, icmp or a number from 1 to 255"
	}
	if !hasPorts || ports == "any" {
		return ""
	}
	if p := sel.Protocol; p != protocols["tcp"] && p != protocols["udp"] && p != protocols["sctp"] {
		return fmt.Sprintf("%s has no ports", name)
	}
	return sel.restrictPorts(ports)
}

func (sel *Selector) restrictPorts(s string) (complaint string) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	from, err := strconv.ParseUint(low, 10, 16)
	to, err2 := strconv.ParseUint(high, 10, 16)
	if err != nil || err2 != nil || from > to || to == 0 {
		return quoted(s) + " is not a port (443) or a range of ports (1024-2047)"
	}
	sel.FromPort, sel.ToPort = uint16(from), uint16(to)
	return ""
}

// retransmit is a profile by name, or the numbers themselves.
func (v value) retransmit() Retransmit {
	if v.n.Kind == yaml.ScalarNode {
		if v.choice([]string{"default", "fast"}) == "fast" {
			return retransmitFast
		}
		return retransmitDefault
	}
	r, before := retransmitDefault, len(v.l.problems)
	retransmitKeys.read(v, &r)
	if len(v.l.problems) == before && r.Total() > time.Hour {
		v.failKey("%s to the verdict; at most 1h is supported", brief(r.Total().Round(time.Second)))
	}
	return r
}

var retransmitKeys = block[Retransmit]{
	{name: "timeout", read: func(r *Retransmit, v value) {
		r.Timeout = v.duration(50*time.Millisecond, time.Minute)
	}},
	{name: "base", read: func(r *Retransmit, v value) { r.Base = v.number(1, 4) }},
	{name: "tries", read: func(r *Retransmit, v value) { r.Tries = v.whole(1, 20) }},
}
