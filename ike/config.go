package ike

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Config is what a gateway is to do. New reads it and does not keep it.
type Config struct {
	Addresses         []netip.Addr // where it listens; the sockets are the caller's
	IKEPort, NATTPort uint16       // 0: 500 and 4500
	Shards            int          // event loops, 1 to 256
	Capacity          int          // tunnels at the same time
	HalfOpen          HalfOpen     // limits of the handshakes beside them
	// ForceEncap asks every peer for UDP encapsulation: a user-space data
	// plane has nothing else.
	ForceEncap  bool
	Connections []Connection
	Pools       []Pool
	Secrets     []Secret
}

// HalfOpen limits the handshakes whose peers have not proved who they are. 0 is
// what suits the capacity.
type HalfOpen struct {
	CookiesFrom int // from so many on everybody must show a cookie. RFC 7296 §2.6
	PerSource   int // of one IPv4 address or IPv6 /64
	Max         int // of all
}

// Connection is what is agreed with one peer, or with many alike.
type Connection struct {
	Name           string
	LocalID        string       // see ParseIdentity
	RemoteID       string       // see ParsePattern
	LocalAddresses []netip.Addr // where to call from; empty: any of Config.Addresses
	// Hosts are where the peer is called, the first first; none: he calls. Unless
	// one is a name he calls from those alone: a name is resolved at each of our
	// calls, and pins nobody.
	Hosts        []Host
	Proposals    []string     // see CheckIKEProposal
	ESPProposals []string     // see CheckESPProposal
	Pools        []string     // names of those that the peer's virtual addresses come from
	VirtualIPs   []netip.Addr // to ask the peer for; unspecified: any of that family
	NATKeepalive time.Duration
	MTU          int // of the tunnel, 576 to 65535; 0: what suits the data plane
	DPD          DPD
	Unique       string // "no", "never", "keep" or "replace", by the pair of identities; "": no
	MaxSAs       int    // that one identity may have at a time; 0: DefaultMaxSAs
	MaxLeases    int    // virtual addresses of a family that it may have; 0: DefaultMaxLeases
	Child        Child
	Start        bool // bring it up as soon as the gateway runs, and again after a failed handshake
}

// What one identity may have where the configuration does not say: some devices,
// and for each a tunnel that is about to replace the one it has.
const (
	DefaultMaxSAs    = 8
	DefaultMaxLeases = 4
)

// DPD says when a silent peer is probed, and when he is dead.
type DPD struct {
	Mode        string // "idle", "on-demand", "periodic" or "off"
	Delay       time.Duration
	MaxSuppress time.Duration // an IKE round trip at least this often; 0: no limit
	// An unanswered request is sent again Tries times, the nth wait being
	// Timeout × Base^n.
	Timeout time.Duration
	Base    float64
	Tries   int
	Restart bool // call again when the peer has died, if he has an address
}

// Child is what a tunnel may carry.
type Child struct {
	Name              string
	LocalTS, RemoteTS []Selector
}

// Selector is a traffic selector: a prefix or, if Dynamic, the virtual address
// where there is one and else the side's own address. Dynamic stands alone.
type Selector struct {
	Prefix           netip.Prefix
	Dynamic          bool
	Protocol         uint8  // 0: any
	FromPort, ToPort uint16 // any: 0 and 65535
}

// Pool is a range of virtual addresses.
type Pool struct {
	Name     string
	Prefixes []netip.Prefix
	DNS      []netip.Addr
	Domains  []string // that the DNS servers are asked for; none: every name
}

// Secret is a pre-shared key and the two who share it. Where several fit, the best
// match is meant: see package policy.
type Secret struct {
	ID      string // the peer's: see ParsePattern. Without LocalID it may be ours
	LocalID string // ours; "": any
	PSK     []byte
}

// Format keeps the key out of logs, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "[secret of %s]", s.ID) }

// MarshalJSON does for a log in JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(s)) }

// Host is an address, or a name that is resolved at each call.
type Host = policy.Host

// Identity is an identity as it goes over the wire.
type Identity = policy.ID

// Pattern is what an identity must match.
type Pattern = policy.Pattern

// ParseIdentity reads an identity: an address, a mail address, a host name,
// keyid:TEXT, or keyid:#HEX for bytes that are no text.
func ParseIdentity(s string) (Identity, error) { return policy.ParseID(s) }

// IsName reports whether s is a DNS name, all of it in ASCII.
func IsName(s string) bool { return policy.IsName(s) }

// Only is the pattern of one identity.
func Only(id Identity) Pattern { return policy.Only(id) }

// Anybody matches every identity.
var Anybody = policy.Anybody

// ParsePattern reads an identity or a pattern of identities: *@DOMAIN,
// *.DOMAIN, or %any.
func ParsePattern(s string) (Pattern, error) { return policy.ParsePattern(s) }

// CheckIKEProposal tells what is wrong with a proposal for IKE, such as
// "aes256gcm16-prfsha384-x25519".
func CheckIKEProposal(s string) error {
	_, err := suite.ParseIKE(s)
	return err
}

// CommonIKE reports whether two lists of proposals for IKE have a suite in common.
func CommonIKE(a, b []string) bool {
	own, err := proposals(a, suite.ParseIKE)
	theirs, err2 := proposals(b, suite.ParseIKE)
	if err != nil || err2 != nil {
		return false
	}
	var offered []wire.Proposal
	for i, p := range theirs {
		offered = append(offered, p.Wire(uint8(i+1), wire.ProtoIKE, nil))
	}
	_, err = suite.Choose(own, offered, wire.ProtoIKE, 0)
	return err == nil
}

// CheckESPProposal tells what is wrong with a proposal for ESP, such as
// "aes256gcm16-esn".
func CheckESPProposal(s string) error {
	_, err := suite.ParseESP(s)
	return err
}

// policy makes what the SAs and the loops need of the configuration.
func (c *Config) policy() (*policy.Set, error) {
	pools := map[string]bool{}
	for _, p := range c.Pools {
		if pools[p.Name] {
			return nil, fmt.Errorf("pool %q stands twice", p.Name)
		}
		pools[p.Name] = true
	}
	var conns []*policy.Connection
	names := map[string]bool{}
	for i := range c.Connections {
		in := &c.Connections[i]
		if names[in.Name] {
			return nil, fmt.Errorf("connection %q stands twice", in.Name)
		}
		names[in.Name] = true
		conn, err := in.policy(pools)
		if err != nil {
			return nil, fmt.Errorf("connection %q: %w", in.Name, err)
		}
		conns = append(conns, conn)
	}
	secrets, err := c.secrets()
	if err != nil {
		return nil, err
	}
	return policy.NewSet(conns, secrets), nil
}

func (c *Config) secrets() ([]policy.Secret, error) {
	type pair struct {
		own  Identity
		peer Pattern
	}
	var out []policy.Secret
	given := map[pair]bool{}
	for _, in := range c.Secrets {
		s := policy.Secret{PSK: append([]byte(nil), in.PSK...)}
		var err error
		if s.Remote, err = ParsePattern(in.ID); err == nil && in.LocalID != "" {
			s.Local, err = ParseIdentity(in.LocalID)
		}
		if err != nil {
			return nil, fmt.Errorf("secret: %w", err)
		}
		if given[pair{s.Local, s.Remote}] {
			return nil, fmt.Errorf("%v stands twice", s)
		}
		given[pair{s.Local, s.Remote}] = true
		out = append(out, s)
	}
	return out, nil
}

// Pins are where alone a peer with these hosts may call from; none: anywhere. What a
// name has today is not what it has when he calls, and who forges DNS would say who
// may: so a name pins nobody, nor does an address beside one.
func Pins(hosts []Host) (only []netip.Addr) {
	for _, h := range hosts {
		if h.Name != "" {
			return nil
		}
		only = append(only, h.Addr)
	}
	return only
}

// named reports whether some host is a name.
func (c *Config) named() bool {
	return slices.ContainsFunc(c.Connections, func(in Connection) bool {
		return slices.ContainsFunc(in.Hosts, func(h Host) bool { return h.Name != "" })
	})
}

// policy is the connection as the SAs and the loops need it.
func (c *Connection) policy(pools map[string]bool) (*policy.Connection, error) {
	mode, known := dpdModes[c.DPD.Mode]
	unique, ok := policy.ParseUnique(cmp.Or(c.Unique, "no"))
	switch {
	case !known:
		return nil, fmt.Errorf("%q is no mode of DPD", c.DPD.Mode)
	case !ok:
		return nil, fmt.Errorf("%q is no kind of uniqueness", c.Unique)
	case c.Start && len(c.Hosts) == 0:
		return nil, errors.New("it is to be started, but has no address to call")
	}
	out := &policy.Connection{Name: c.Name, Pins: Pins(c.Hosts), Hosts: c.Hosts, Locals: c.LocalAddresses, Pools: c.Pools, VIPs: c.VirtualIPs,
		NATKeepalive: c.NATKeepalive, MTU: c.MTU, Start: c.Start, Restart: c.DPD.Restart && len(c.Hosts) > 0,
		Unique: unique, MaxSAs: cmp.Or(c.MaxSAs, DefaultMaxSAs), MaxLeases: cmp.Or(c.MaxLeases, DefaultMaxLeases),
		DPD:     dpd.Config{Mode: mode, Delay: c.DPD.Delay, MaxSuppress: c.DPD.MaxSuppress},
		Backoff: policy.Backoff{Timeout: c.DPD.Timeout, Base: c.DPD.Base, Tries: c.DPD.Tries}}
	if out.Backoff == (policy.Backoff{}) {
		out.Backoff = policy.DefaultBackoff
	}
	if c.MTU != 0 && (c.MTU < 576 || c.MTU > 65535) {
		return nil, fmt.Errorf("an MTU of %d is not from 576 to 65535", c.MTU)
	}
	for _, name := range c.Pools {
		if !pools[name] {
			return nil, fmt.Errorf("there is no pool %q", name)
		}
	}
	var err error
	if out.LocalID, err = ParseIdentity(c.LocalID); err != nil {
		return nil, fmt.Errorf("local identity: %w", err)
	}
	if out.RemoteID, err = ParsePattern(c.RemoteID); err != nil {
		return nil, fmt.Errorf("remote identity: %w", err)
	}
	if out.Proposals, err = proposals(c.Proposals, suite.ParseIKE); err != nil {
		return nil, err
	}
	out.Child.Name = c.Child.Name
	if out.Child.Proposals, err = proposals(c.ESPProposals, suite.ParseESP); err != nil {
		return nil, err
	}
	if out.Child.Local, err = selectors(c.Child.LocalTS); err != nil {
		return nil, err
	}
	out.Child.Remote, err = selectors(c.Child.RemoteTS)
	return out, err
}

func proposals(names []string, parse func(string) (suite.Proposal, error)) ([]suite.Proposal, error) {
	if len(names) == 0 {
		return nil, errors.New("no proposal")
	}
	var out []suite.Proposal
	for _, name := range names {
		p, err := parse(name)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// selectors are none for a dynamic one.
func selectors(in []Selector) ([]wire.Selector, error) {
	var out []wire.Selector
	for _, s := range in {
		if s.Dynamic {
			if len(in) > 1 || s.Protocol != 0 {
				return nil, errors.New("a dynamic selector stands alone, without protocol and ports")
			}
			return nil, nil
		}
		if !s.Prefix.IsValid() {
			return nil, errors.New("a selector has no prefix")
		}
		out = append(out, wire.Selector{Protocol: s.Protocol, StartPort: s.FromPort, EndPort: s.ToPort,
			Start: s.Prefix.Masked().Addr(), End: lastOf(s.Prefix)})
	}
	return out, nil
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

var dpdModes = map[string]dpd.Mode{"idle": dpd.Idle, "on-demand": dpd.OnDemand, "periodic": dpd.Periodic, "off": dpd.Off}
