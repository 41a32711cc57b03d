// Package config reads the gateway's YAML configuration, strictly: a key it
// does not know is a problem, not a default, and every problem of every file
// is reported at once, each with its place. It reads files and changes
// nothing, and most of it needs no privilege (see Check).
//
// One file is the first; it may include others, which hold connections, pools,
// secrets and further includes. A file's tree is decoded into plain structs
// and let go before the next file is read; no step compares every item with
// every other, so the time and memory of a load grow with the configuration's
// size and not faster.
package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os/user"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

// Config is a whole configuration, defaults filled in. It is not changed after
// Load; slices in it may be shared between connections.
type Config struct {
	Listen      Listen
	XDP         XDP
	Dataplane   string // "userspace": the only one so far
	Shards      int    // 1..MaxShards, never more than XDP.Capacity
	HalfOpen    HalfOpen
	Unprotected string         // "block" or "pass": what a tunnel covers, while none takes it
	Bypass      []netip.Prefix // never into a tunnel; no remote selector or pool lies within one
	Control     Control
	Log         Log
	Connections []Connection // in the order of the files, then within them
	Pools       []Pool
	Secrets     []Secret

	// Notes are oddities that keep nothing from running, such as a glob that
	// matches no file. They have the form of problems.
	Notes Problems
}

// Listen is where the gateway is reached.
type Listen struct {
	Addresses  []netip.Addr // at least one; never unspecified, multicast or 4-in-6
	Interfaces []string     // empty: those that carry the addresses
}

// XDP configures the packet program.
type XDP struct {
	Keepalive      string // "answer", "absorb" or "pass"
	AnswerInterval time.Duration
	Capacity       int  // tunnels, 1..MaxCapacity
	StrangerPass   bool // a keepalive from an unknown tuple goes to the stack
	PassEvery      int  // so does every so manieth from a known one; 0: none
	KeepTags       bool // the NIC's VLAN offload is off where it hides tags, while XDP is there
}

// HalfOpen limits the handshakes whose peers have not proved who they are. 0 is
// what suits the capacity.
type HalfOpen struct {
	CookiesFrom int // never more than Max, nor is PerSource, where both are set
	PerSource   int
	Max         int
}

// Control is the control socket.
type Control struct {
	Socket    string // absolute; empty where the file names none: the instance's own
	Group     *Group // whose members may act; nil: nobody's
	ReadGroup *Group // whose members may only read; nil: nobody's, and never Group
}

// Group is one of the host's.
type Group struct {
	Name string // as the file has it: a name or a number
	ID   uint32
}

// Log says what is logged, and how.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}

// Connection is what is agreed with one peer, or with many alike.
type Connection struct {
	Name          string
	Pos           Pos
	Local, Remote Party
	VIPs          []netip.Addr // as initiator: virtual addresses to ask for; unspecified: any of that family
	Pools         []string     // as responder: where virtual addresses come from; each is in Config.Pools
	Proposals     []string
	ESPProposals  []string      // what a child has that names none
	NATKeepalive  time.Duration // as the natted side: how often we send a keepalive
	MTU           int           // of the packets inside; 0: what suits the data plane
	Unique        string        // "no", "never", "keep" or "replace"
	MaxSAs        int           // that one identity may have at a time
	MaxLeases     int           // virtual addresses of a family that it may have
	DPD           DPD
	Children      []Child // exactly one, so far
}

// Party is one side of a connection.
type Party struct {
	Auth string      // "psk"
	ID   ike.Pattern // the local one is exact
	// Addresses: local: some of Listen.Addresses, empty for any of them; remote:
	// where to initiate to, and empty if the peer always initiates. Only a remote
	// one may be a name.
	Addresses []Host
}

// Host is an address, or a name that is resolved whenever it is called.
type Host struct {
	Addr netip.Addr
	Name string // "": Addr
}

func (h Host) String() string {
	if h.Name != "" {
		return h.Name
	}
	return h.Addr.String()
}

// MarshalText gives the host as a config file has it.
func (h Host) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// Literal are the addresses that stand in the file.
func (p *Party) Literal() (out []netip.Addr) {
	for _, h := range p.Addresses {
		if h.Name == "" {
			out = append(out, h.Addr)
		}
	}
	return out
}

// Names are those that the addresses of a name are asked for.
func (p *Party) Names() (out []string) {
	for _, h := range p.Addresses {
		if h.Name != "" {
			out = append(out, h.Name)
		}
	}
	return out
}

// DPD says when a silent peer is probed, and when it is dead.
type DPD struct {
	Mode        string // "idle", "on-demand", "periodic" or "off"
	Delay       time.Duration
	Retransmit  Retransmit
	MaxSuppress time.Duration
	Action      string // "clear": the only one so far
}

// Retransmit is the timing of an unanswered request: the first wait is
// Timeout, each further one Base times longer, and after Tries
// retransmissions and one last wait the peer is dead.
type Retransmit struct {
	Timeout time.Duration
	Base    float64
	Tries   int
}

// Total is the time from a request to the verdict.
func (r Retransmit) Total() time.Duration {
	wait, sum := float64(r.Timeout), 0.0
	for range r.Tries + 1 {
		sum += wait
		wait *= r.Base
	}
	return time.Duration(sum)
}

// Child is a pair of traffic selector lists under one connection.
type Child struct {
	Name              string
	Pos               Pos
	LocalTS, RemoteTS []Selector // 1..MaxSelectors each
	ESPProposals      []string
	StartAction       string // "none" or "start"
}

// Selector is a traffic selector: Prefix, or, if Dynamic, the virtual address
// where there is one and else the party's own. Protocol 0 is any; ports are
// 0..65535 unless the selector narrows them.
type Selector struct {
	Prefix           netip.Prefix
	Dynamic          bool
	Protocol         uint8
	FromPort, ToPort uint16
}

func (s Selector) String() string {
	base := s.Prefix.String()
	if s.Dynamic {
		base = "dynamic"
	}
	switch {
	case s.Protocol == 0:
		return base
	case s.FromPort == 0 && s.ToPort == 65535:
		return fmt.Sprintf("%s[%d]", base, s.Protocol)
	case s.FromPort == s.ToPort:
		return fmt.Sprintf("%s[%d/%d]", base, s.Protocol, s.FromPort)
	}
	return fmt.Sprintf("%s[%d/%d-%d]", base, s.Protocol, s.FromPort, s.ToPort)
}

// MarshalText gives the selector as a config file has it.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Pool is a range of virtual addresses. No two overlap.
type Pool struct {
	Name      string
	Pos       Pos // of its addresses
	Addresses netip.Prefix
	DNS       []netip.Addr // of the same family
	Domains   []string     // that clients ask those for; none: every name
}

// Secret is the key that two prove their identities with. Where several match, the
// best match is meant.
type Secret struct {
	Local ike.Identity // ours; zero: any
	ID    ike.Pattern  // the peer's; where Local is zero it may be ours
	PSK   PSK
	File  string
	Pos   Pos
}

// Checks are what a configuration asks of others. All must be set.
type Checks struct {
	// The syntax checks of what another package defines. An error's text is
	// shown to the operator behind the proposal.
	IKEProposal func(string) error
	ESPProposal func(string) error
	// Common reports whether what two connections take in IKE_SA_INIT has anything
	// in common.
	Common func(a, b []string) bool
	// Group finds a group of the host by its name, or fails with
	// user.UnknownGroupError where there is none.
	Group func(name string) (*user.Group, error)
}

// Limits of a configuration.
const (
	MaxShards    = 16
	MaxCapacity  = 1 << 21 // an SPI has 22 slot bits, and the arrays hold twice the capacity
	MaxSelectors = 4
	maxListen    = 64
	maxProposals = 16

	// XDP counts in ticks of about a second.
	MinAnswerInterval, MaxAnswerInterval = time.Second, time.Hour
)

// Load reads the configuration at path with everything it refers to. The
// Config is nil if there are problems, and complete otherwise.
func Load(path string, c Checks) (*Config, Problems) {
	l := newLoader(c)
	l.readFiles(path)
	l.readSecrets()
	return l.finish()
}

// Check is Load for somebody who may lack the right to read the secrets or the
// host's groups: what permissions hide is a note instead of a problem. The Config it returns
// holds no secret's value, so it can be looked at but not run.
func Check(path string, c Checks) (*Config, Problems) {
	l := newLoader(c)
	l.unprivileged = true
	l.readFiles(path)
	l.readSecrets()
	cfg, ps := l.finish()
	if cfg != nil {
		for i := range cfg.Secrets {
			cfg.Secrets[i].PSK = PSK{}
		}
	}
	return cfg, ps
}
