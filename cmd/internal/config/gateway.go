package config

import (
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ikepulse/ikepulse/ike"
)

const (
	defaultAnswerInterval = 10 * time.Second
	notYet                = "not available yet"
)

// firstKeys are those of the first file.
var firstKeys = block[loader]{
	{name: "include", read: (*loader).readIncludes},
	{name: "listen", read: func(l *loader, v value) { l.readListen(v) }},
	{name: "xdp", read: func(l *loader, v value) { xdpKeys.read(v, &l.cfg.XDP) }},
	{name: "dataplane", read: func(l *loader, v value) {
		l.cfg.Dataplane = v.choice([]string{"userspace"}, "kernel", "auto")
	}},
	{name: "shards", read: (*loader).readShards},
	{name: "half_open", read: (*loader).readHalfOpen},
	{name: "unprotected", read: func(l *loader, v value) { l.cfg.Unprotected = v.choice([]string{"block", "pass"}) }},
	{name: "bypass", read: func(l *loader, v value) { l.cfg.Bypass = distinct(v, maxBypass, value.prefix) }},
	{name: "defaults", read: func(l *loader, v value) { defaultsKeys.read(v, &l.defaults) }},
	{name: "connections", read: (*loader).readConnections},
	{name: "pools", read: (*loader).readPools},
	{name: "secrets", read: (*loader).readSecretList},
	{name: "control", read: func(l *loader, v value) { controlKeys.read(v, &l.cfg.Control) }},
	{name: "log", read: func(l *loader, v value) { logKeys.read(v, &l.cfg.Log) }},
	{name: "probes", refuse: notYet + "; probes are not paced so far"},
	{name: "metrics", refuse: notYet},
	{name: "guard", refuse: notYet},
}

// includedKeys are those of a file that another includes.
var includedKeys = firstKeys.only(
	"belongs in the first file; an included one holds connections, pools, secrets and include",
	"include", "connections", "pools", "secrets")

func (l *loader) readFirst(v value) {
	if firstKeys.read(v, l) && v.lacks("listen") {
		l.report(v.pos(), "listen.addresses", "missing; say which addresses the gateway is reached at")
	}
}

func (l *loader) readIncludes(v value) {
	l.patterns = append(l.patterns, v.items()...)
}

var listenKeys = block[Listen]{
	{name: "addresses", read: func(n *Listen, v value) { n.Addresses = v.addresses(maxListen, goodListenAddress) }},
	{name: "interfaces", read: func(n *Listen, v value) { n.Interfaces = v.texts(maxListen, goodInterface) }},
}

func (l *loader) readListen(v value) {
	before := len(l.problems)
	if listenKeys.read(v, &l.cfg.Listen) && v.lacks("addresses") {
		v.l.report(v.keyPos(), "listen.addresses", "missing; say which addresses the gateway is reached at")
	}
	l.listenKnown = len(l.problems) == before
}

func goodListenAddress(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return a.String() + " is every address; name each one, since only packets to these are looked at in XDP"
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a.String() + " is not an address of one host"
	}
	return ""
}

func goodInterface(name string) string {
	bad := func(r rune) bool { return !isGraphic(r) || r == '/' || r == ':' }
	if len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, bad) {
		return quoted(name) + " is not the name of an interface"
	}
	return ""
}

var xdpKeys = block[XDP]{
	{name: "keepalive", read: func(x *XDP, v value) {
		x.Keepalive = v.choice([]string{"answer", "absorb", "pass"})
	}},
	{name: "answer_interval", read: func(x *XDP, v value) {
		x.AnswerInterval = v.duration(MinAnswerInterval, MaxAnswerInterval)
	}},
	{name: "capacity", read: func(x *XDP, v value) { x.Capacity = v.whole(1, MaxCapacity) }},
	{name: "stranger", read: func(x *XDP, v value) {
		x.StrangerPass = v.choice([]string{"drop", "pass"}) == "pass"
	}},
	{name: "pass_every", read: func(x *XDP, v value) { x.PassEvery = v.whole(0, 1_000_000) }},
	{name: "vlan_offload", read: func(x *XDP, v value) {
		x.KeepTags = v.choice([]string{"keep", "off"}) == "off"
	}},
	{name: "account_every_packet", refuse: notYet},
}

// readShards comes behind xdp in the table: every shard needs room.
func (l *loader) readShards(v value) {
	l.cfg.Shards = v.whole(1, MaxShards)
	if l.cfg.XDP.Capacity > 0 && l.cfg.Shards > l.cfg.XDP.Capacity {
		v.fail("%d shards for xdp.capacity %d; each needs room for a tunnel", l.cfg.Shards, l.cfg.XDP.Capacity)
	}
}

var halfOpenKeys = block[HalfOpen]{
	{name: "max", read: func(h *HalfOpen, v value) { h.Max = v.wholeOrAuto(1, maxHalfOpen) }},
	{name: "cookies_from", read: func(h *HalfOpen, v value) {
		h.CookiesFrom = v.wholeOrAuto(1, maxHalfOpen)
		h.within(v, h.CookiesFrom)
	}},
	{name: "per_source", read: func(h *HalfOpen, v value) {
		h.PerSource = v.wholeOrAuto(1, maxHalfOpen)
		h.within(v, h.PerSource)
	}},
}

// maxHalfOpen is some 4 GB of ordinary handshakes.
const maxHalfOpen = 1 << 20

func (l *loader) readHalfOpen(v value) { halfOpenKeys.read(v, &l.cfg.HalfOpen) }

// within comes behind max in the table.
func (h *HalfOpen) within(v value, n int) {
	if h.Max != 0 && n > h.Max {
		v.fail("%d is more than max, which is %d", n, h.Max)
	}
}

// maxBypass: each stands in the kernel's tables.
const maxBypass = 1024

var logKeys = block[Log]{
	{name: "level", read: func(g *Log, v value) { g.Level = levels[v.choice([]string{"debug", "info", "warn", "error"})] }},
	{name: "format", read: func(g *Log, v value) { g.Format = v.choice([]string{"text", "json"}) }},
}

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

var poolKeys = block[Pool]{
	{name: "addresses", read: func(p *Pool, v value) { p.readAddresses(v) }},
	{name: "dns", read: func(p *Pool, v value) { p.DNS = v.addresses(8, p.goodDNS) }},
	{name: "domains", read: (*Pool).readDomains},
	{name: "addrs", refuse: "it is called addresses here"},
	{name: "nbns", refuse: notYet},
	{name: "split_include", refuse: notYet},
}

func (p *Pool) readAddresses(v value) {
	r, ok := v.prefix()
	switch {
	case !ok:
	case r.Addr().IsUnspecified(), r.Addr().IsMulticast(), r.Addr().IsLoopback():
		v.fail("%s has no addresses to give out", r)
	default:
		p.Addresses, p.Pos = r, v.pos()
	}
}

func (p *Pool) goodDNS(a netip.Addr) string {
	if p.Addresses.IsValid() && p.Addresses.Addr().Is4() != a.Is4() {
		return a.String() + " is " + family(a) + ", but the pool gives out " + family(p.Addresses.Addr())
	}
	if a.IsUnspecified() || a.IsMulticast() {
		return a.String() + " is not an address of one host"
	}
	return ""
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func (l *loader) readPools(v value) {
	v.named("pools", func(name string, v value) {
		fresh := l.claim(v)
		if !v.plain() {
			return
		}
		p := Pool{Name: name, Pos: v.keyPos()}
		if poolKeys.read(v, &p) && v.lacks("addresses") {
			v.failKey("addresses is missing")
		}
		if len(p.Domains) > 0 && v.lacks("dns") {
			v.failKey("domains without dns; say which DNS servers clients ask for them")
		}
		if fresh {
			l.poolNames = append(l.poolNames, name)
		}
		if fresh && p.Addresses.IsValid() {
			l.cfg.Pools = append(l.cfg.Pools, p)
		}
	})
}

// secretDraft is an entry of the list of secrets.
type secretDraft struct {
	pair
	idAt Pos
	file string
	at   Pos
}

// readPair reads ours and the peer's, in this order.
func (s *secretDraft) readPair(v value) {
	items := v.items()
	if items == nil {
		return
	}
	if len(items) != 2 {
		v.fail("must be two: ours, then the peer's")
		return
	}
	own, ok := items[0].exactIdentity()
	if peer, fine := items[1].identity(); ok && fine {
		s.pair, s.idAt = pair{own, peer}, v.pos()
	}
}

const inlineSecret = "secrets do not stand in the config; put it in a file of mode 0600 and name that as psk_file"

var secretKeys = block[secretDraft]{
	{name: "id", read: func(s *secretDraft, v value) {
		if id, ok := v.identity(); ok {
			s.pair, s.idAt = pair{remote: id}, v.pos()
		}
	}},
	{name: "ids", read: (*secretDraft).readPair},
	{name: "psk_file", read: func(s *secretDraft, v value) {
		if path, ok := v.text(); ok {
			s.file, s.at = beside(v.file, path), v.pos()
		}
	}},
	{name: "psk", refuse: inlineSecret},
	{name: "secret", refuse: inlineSecret},
}

// readSecretList never shows a value: it may be what must not be shown.
func (l *loader) readSecretList(v value) {
	if v.n.Kind != yaml.SequenceNode {
		v.fail("must be a list; each entry has an id and a psk_file")
		return
	}
	for _, item := range v.items() {
		l.readSecretEntry(item)
	}
}

func (l *loader) readSecretEntry(v value) {
	var s secretDraft
	if !secretKeys.read(v, &s) {
		return
	}
	switch {
	case v.has("id") && v.has("ids"):
		v.fail("either id, for one who shares it with whoever of us, or ids, for the two")
	case !v.has("ids") && v.lacks("id"):
		v.fail("id is missing; say whose secret it is")
	}
	if v.lacks("psk_file") && v.lacks("secret") {
		v.fail("psk_file is missing")
	}
	if s.remote == (ike.Pattern{}) {
		l.incomplete = true
		return
	}
	if first, twice := l.secretIDs.add(s.pair, s.idAt); twice {
		l.report(s.idAt, "secrets.id", s.pair.String()+" is given twice; first at "+first.String())
		return
	}
	l.cfg.Secrets = append(l.cfg.Secrets, Secret{Local: s.local, ID: s.remote, File: s.file, Pos: v.pos()})
	l.secretFilesAt = append(l.secretFilesAt, s.at)
}
