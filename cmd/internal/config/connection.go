package config

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

// What a connection has that names none. Both are lists in the order of
// preference, in swanctl's notation.
var (
	DefaultProposals    = []string{"aes256gcm16-prfsha384-prfsha256-x25519-ecp384-ecp256", "aes256-sha256-x25519-ecp256"}
	DefaultESPProposals = []string{"aes256gcm16-esn-noesn", "aes256-sha256-esn-noesn"}
)

// maxShare is the largest share of one identity.
const maxShare = 1 << 20

const defaultNATKeepalive = 20 * time.Second

var defaultDPD = DPD{
	Mode:        "idle",
	Delay:       30 * time.Second,
	Retransmit:  retransmitDefault,
	MaxSuppress: 10 * time.Minute,
	Action:      "clear",
}

// The two profiles by name: dead after 165 s, and after 13 s.
var (
	retransmitDefault = Retransmit{Timeout: 4 * time.Second, Base: 1.8, Tries: 5}
	retransmitFast    = Retransmit{Timeout: time.Second, Base: 1.5, Tries: 4}
)

const (
	inConnection = "belongs in each connection, not in defaults"
	noRekeyYet   = notYet + "; an SA lives until one side deletes it"
)

// connectionKeys are those of a connection. The refused ones are what comes
// later, and what a swanctl user would write.
var connectionKeys = block[Connection]{
	{name: "local", read: func(c *Connection, v value) { c.readLocal(v) }},
	{name: "remote", read: func(c *Connection, v value) { c.readRemote(v) }},
	{name: "mtu", read: func(c *Connection, v value) { c.MTU = v.wholeOrAuto(minMTU, maxMTU) }},
	{name: "vips", read: func(c *Connection, v value) { c.VIPs = v.addresses(2, goodVIP) }},
	{name: "pools", read: func(c *Connection, v value) { c.readPoolNames(v) }},
	{name: "proposals", read: func(c *Connection, v value) { c.Proposals = v.proposals(v.l.checks.IKEProposal) }},
	{name: "esp_proposals", read: func(c *Connection, v value) { c.ESPProposals = v.proposals(v.l.checks.ESPProposal) }},
	{name: "nat_keepalive", read: func(c *Connection, v value) {
		c.NATKeepalive = v.duration(100*time.Millisecond, time.Hour)
	}},
	{name: "dpd", read: func(c *Connection, v value) { c.DPD.readFrom(v) }},
	{name: "children", read: func(c *Connection, v value) { c.readChildren(v) }},
	{name: "rekey_time", refuse: noRekeyYet},
	{name: "reauth_time", refuse: noRekeyYet},
	{name: "over_time", refuse: noRekeyYet},
	{name: "rand_time", refuse: noRekeyYet},
	{name: "mobike", refuse: notYet},
	{name: "fragmentation", refuse: notYet},
	{name: "unique", read: func(c *Connection, v value) { c.Unique = v.choice([]string{"no", "never", "keep", "replace"}) }},
	{name: "max_sas", read: func(c *Connection, v value) { c.MaxSAs = v.whole(1, maxShare) }},
	{name: "max_leases", read: func(c *Connection, v value) { c.MaxLeases = v.whole(1, maxShare) }},
	{name: "encap", refuse: "always on with this data plane; leave it out"},
	{name: "version", refuse: "always IKEv2; leave it out"},
	{name: "local_addrs", refuse: "write local: {addresses: …}"},
	{name: "remote_addrs", refuse: "write remote: {addresses: …}"},
	{name: "dpd_delay", refuse: "write dpd: {delay: …}"},
	{name: "dpd_timeout", refuse: "write dpd: {retransmit: …}"},
	{name: "keepalive", refuse: "write nat_keepalive"},
}

var defaultsKeys = connectionKeys.only(inConnection,
	"local", "mtu", "proposals", "esp_proposals", "nat_keepalive", "unique", "max_sas", "max_leases", "dpd")

func (l *loader) readConnections(v value) {
	v.named("connections", func(name string, v value) {
		fresh := l.claim(v)
		if !v.plain() {
			return
		}
		c := l.defaults
		c.Name, c.Pos = name, v.keyPos()
		if connectionKeys.read(v.asRoot(), &c) && fresh {
			l.checkConnection(&c, v)
			l.cfg.Connections = append(l.cfg.Connections, c)
		}
	})
}

// checkConnection looks at a connection as a whole. What a key of it was
// refused for is not repeated here.
func (l *loader) checkConnection(c *Connection, v value) {
	for _, need := range []struct {
		name  string
		given bool
	}{
		{"local", c.Local.Auth != ""},
		{"remote", false},
		{"children", false},
	} {
		if !need.given && v.lacks(need.name) {
			v.failKey("%s is missing", need.name)
		}
	}
	c.checkRole(v)
	c.checkMTU(v)
	c.inheritChild()
	l.checkPair(c, v)
}

// checkRole finds what does not fit who initiates.
func (c *Connection) checkRole(v value) {
	starts := slices.ContainsFunc(c.Children, func(ch Child) bool { return ch.StartAction == "start" })
	reachable := len(c.Remote.Addresses) > 0 || v.has("remote", "addresses")
	switch {
	case starts && !reachable:
		v.failKey("start_action: start needs remote: {addresses: …}, to know where to")
	case starts && !exactID(c.Remote.ID):
		v.failKey("start_action: start needs an exact remote id, to know whom to expect; %s is a pattern", c.Remote.ID)
	}
	switch {
	case len(c.VIPs) > 0 && !reachable:
		v.failKey("vips are asked for by the side that initiates; give remote: {addresses: …}")
	case len(c.VIPs) > 0 && len(c.Pools) > 0:
		v.failKey("either vips, to ask for virtual addresses, or pools, to give them out")
	}
}

// inheritChild gives the children what they left to the connection.
func (c *Connection) inheritChild() {
	for i := range c.Children {
		if ch := &c.Children[i]; ch.ESPProposals == nil {
			ch.ESPProposals = c.ESPProposals
		}
	}
}

func exactID(p ike.Pattern) bool {
	_, exact := p.Exact()
	return exact
}

func (c *Connection) readPoolNames(v value) {
	c.Pools = distinct(v, 8, func(item value) (string, bool) {
		name, ok := item.text()
		if ok {
			v.l.poolUses = append(v.l.poolUses, poolUse{name, item.pos(), c.MTU})
		}
		return name, ok
	})
}

func goodVIP(a netip.Addr) string {
	if a.IsMulticast() || a.IsLoopback() {
		return a.String() + " cannot be a virtual address"
	}
	return ""
}

// proposals are checked by who will parse them.
func (v value) proposals(check func(string) error) []string {
	return v.texts(maxProposals, func(s string) string {
		if err := check(s); err != nil {
			return quoted(s) + ": " + printable(err.Error())
		}
		return ""
	})
}

// readLocal reads our side. It may be told in defaults, so a connection's
// words come on top of what is there.
func (c *Connection) readLocal(v value) {
	if !localKeys.read(v, &c.Local) {
		return
	}
	c.Local.checkComplete(v)
}

func (c *Connection) readRemote(v value) {
	if remoteKeys.read(v, &c.Remote) {
		c.Remote.checkComplete(v)
	}
}

// checkComplete finds what neither the block nor the defaults tell.
func (p *Party) checkComplete(v value) {
	if p.Auth == "" && v.lacks("auth") {
		v.failKey("auth is missing; write auth: psk")
	}
	if p.ID == (ike.Pattern{}) && v.lacks("id") {
		v.failKey("id is missing; say who this is")
	}
}

var localKeys = block[Party]{
	{name: "auth", read: (*Party).readAuth},
	{name: "id", read: func(p *Party, v value) {
		if id, ok := v.exactIdentity(); ok {
			p.ID = ike.Only(id)
		}
	}},
	{name: "addresses", read: (*Party).readLocalAddresses},
	{name: "certs", refuse: notYet},
	{name: "cert", refuse: notYet},
	{name: "eap_id", refuse: notYet},
}

var remoteKeys = block[Party]{
	{name: "auth", read: (*Party).readAuth},
	{name: "id", read: func(p *Party, v value) {
		if id, ok := v.identity(); ok {
			p.ID = id
		}
	}},
	{name: "addresses", read: func(p *Party, v value) { p.Addresses = distinct(v, maxListen, value.host) }},
	{name: "certs", refuse: notYet},
	{name: "cert", refuse: notYet},
	{name: "cacerts", refuse: notYet},
	{name: "eap_id", refuse: notYet},
}

func (p *Party) readLocalAddresses(v value) {
	p.Addresses = nil
	for _, a := range v.addresses(maxListen, v.l.goodLocalAddress) {
		p.Addresses = append(p.Addresses, Host{Addr: a})
	}
}

func (p *Party) readAuth(v value) {
	p.Auth = v.choice([]string{"psk"}, "pubkey", "rsa", "ecdsa", "cert", "eap", "eap-mschapv2", "eap-tls", "eap-radius", "eap-md5")
}

func (l *loader) goodLocalAddress(a netip.Addr) string {
	if l.listenKnown && !slices.Contains(l.cfg.Listen.Addresses, a) {
		return a.String() + " is not one of listen.addresses"
	}
	return ""
}

func (l *loader) goodRemoteAddress(a netip.Addr) string {
	switch {
	case a.IsUnspecified() || a.IsMulticast():
		return a.String() + " is not an address of one host"
	case slices.Contains(l.cfg.Listen.Addresses, a):
		return a.String() + " is our own: it is one of listen.addresses"
	case l.listenKnown && !sameFamily(a, l.cfg.Listen.Addresses):
		return a.String() + " cannot be reached: listen.addresses has no " + family(a) + " address"
	}
	return ""
}

var dpdKeys = block[DPD]{
	{name: "mode", read: func(d *DPD, v value) {
		d.Mode = v.choice([]string{"idle", "on-demand", "periodic", "off"})
	}},
	{name: "delay", read: func(d *DPD, v value) {
		d.Delay = v.duration(100*time.Millisecond, 24*time.Hour)
	}},
	{name: "retransmit", read: func(d *DPD, v value) { d.Retransmit = v.retransmit() }},
	{name: "max_suppress", read: func(d *DPD, v value) {
		d.MaxSuppress = v.duration(100*time.Millisecond, 7*24*time.Hour)
	}},
	{name: "action", read: func(d *DPD, v value) {
		d.Action = v.choice([]string{"clear"}, "trap", "restart")
	}},
	{name: "timeout", refuse: "write retransmit; the time to the verdict follows from it"},
}

// readFrom reads a block on top of what is there.
func (d *DPD) readFrom(v value) {
	before := len(v.l.problems)
	dpdKeys.read(v, d)
	if len(v.l.problems) == before && d.Mode != "off" && d.MaxSuppress < d.Delay {
		v.failKey("max_suppress (%s) is shorter than delay (%s), which would never pass", brief(d.MaxSuppress), brief(d.Delay))
	}
}
