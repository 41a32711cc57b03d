package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"runtime"
	"slices"

	"github.com/ikepulse/ikepulse/ike"
)

// loader collects a configuration over its files. It is used once.
type loader struct {
	checks       Checks
	unprivileged bool

	cfg      Config
	defaults Connection // what every connection starts from
	problems Problems

	queue    []*source // files to read
	patterns []value   // of the current file, for more of them
	files    map[fileID]*source
	trust    *trust
	order    map[string]int // of the files, by name, in the order read

	// incomplete is set where a file is missing from the picture, so that what
	// refers to it is not called wrong.
	incomplete  bool
	listenKnown bool // every listen address was good; as above

	names         map[string]Pos // of connections and pools: "pools.office"
	poolNames     []string
	poolUses      []poolUse
	peers         []peer
	meetings      map[meeting]peer
	secretIDs     pairSet
	secretFilesAt []Pos    // beside cfg.Secrets
	hidden        Problems // notes of secrets that permissions keep from us

	// hints is how much may yet be spent on finding what was meant.
	hints int

	// work counts nodes read and comparisons made, so that a test can hold
	// their growth to that of the input.
	work int
}

// poolUse is a connection's mention of a pool.
type poolUse struct {
	name string
	at   Pos
	mtu  int // the connection's
}

func newLoader(c Checks) *loader {
	l := &loader{
		checks:    c,
		files:     map[fileID]*source{},
		trust:     newTrust(),
		order:     map[string]int{},
		names:     map[string]Pos{},
		meetings:  map[meeting]peer{},
		secretIDs: newPairSet(),
		hints:     hintBudget,
	}
	l.cfg = Config{
		XDP:       XDP{Keepalive: "answer", AnswerInterval: defaultAnswerInterval, Capacity: 65536},
		Dataplane: "userspace", Unprotected: "block",
		Log: Log{Format: "text"},
	}
	l.defaults = Connection{
		Proposals:    slices.Clone(DefaultProposals),
		ESPProposals: slices.Clone(DefaultESPProposals),
		NATKeepalive: defaultNATKeepalive,
		Unique:       "no",
		MaxSAs:       ike.DefaultMaxSAs,
		MaxLeases:    ike.DefaultMaxLeases,
		DPD:          defaultDPD,
	}
	return l
}

func (l *loader) report(at Pos, key, text string) {
	l.problems = append(l.problems, Problem{at, key, text})
}

func (l *loader) note(at Pos, key, text string) {
	l.cfg.Notes = append(l.cfg.Notes, Problem{at, key, text})
}

// maxAlike is how many notes of a kind are shown.
const maxAlike = 4

// noteSome notes what is alike, the first few by their place, and counts the rest.
func (l *loader) noteSome(alike Problems, rest string) {
	l.sort(alike)
	if len(alike) > maxAlike+1 {
		next := &alike[maxAlike]
		next.Key, next.Text = "", fmt.Sprintf("%d %s", len(alike)-maxAlike, rest)
		alike = alike[:maxAlike+1]
	}
	l.cfg.Notes = append(l.cfg.Notes, alike...)
}

// claim takes a name that only one may have.
func (l *loader) claim(v value) bool {
	if first, taken := l.names[v.key]; taken {
		v.failKey("given twice; first at %s", first)
		return false
	}
	l.names[v.key] = v.keyPos()
	return true
}

// finish makes the checks that need every file, and gives the result.
func (l *loader) finish() (*Config, Problems) {
	l.checkPoolUses()
	l.checkOverlap()
	l.checkBypass()
	l.checkSecrets()
	l.lookAtPeers()
	l.resolveShards()
	l.sort(l.problems)
	l.sort(l.cfg.Notes)
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	return &l.cfg, nil
}

func (l *loader) sort(ps Problems) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(l.order[a.Pos.File], l.order[b.Pos.File]),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
}

// checkPoolUses finds pools that nobody defines, and those that a connection's
// MTU does not suit.
func (l *loader) checkPoolUses() {
	if l.incomplete {
		return
	}
	pools := map[string]Pool{}
	for _, p := range l.cfg.Pools {
		pools[p.Name] = p
	}
	for _, use := range l.poolUses {
		if _, there := l.names["pools."+use.name]; there {
			if p, good := pools[use.name]; good && lessThanIPv6(use.mtu, p.Addresses.Addr()) {
				l.report(use.at, "pools", tooSmallForIPv6(use.mtu, p.Addresses))
			}
			continue
		}
		text := "there is no pool " + quoted(use.name)
		if near := l.similar(use.name, l.poolNames); near != "" {
			text += "; did you mean " + quoted(near) + "?"
		}
		l.report(use.at, "pools", text)
	}
}

// checkOverlap finds pools that share addresses with another or with us. In
// the order of their first addresses, wider before narrower, a pool that
// overlaps others lies within them, and is reported with the innermost.
func (l *loader) checkOverlap() {
	pools := make([]*Pool, len(l.cfg.Pools))
	for i := range pools {
		pools[i] = &l.cfg.Pools[i]
	}
	slices.SortStableFunc(pools, func(a, b *Pool) int {
		l.work++
		return cmp.Or(a.Addresses.Addr().Compare(b.Addresses.Addr()), cmp.Compare(a.Addresses.Bits(), b.Addresses.Bits()))
	})
	var open []*Pool // around the current one, each within the one before it
	for _, p := range pools {
		l.work++
		for len(open) > 0 && !open[len(open)-1].Addresses.Overlaps(p.Addresses) {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			l.reportOverlap(open[len(open)-1], p)
		}
		open = append(open, p)
		for _, a := range l.cfg.Listen.Addresses {
			if p.Addresses.Contains(a) {
				l.report(p.Pos, "pools."+p.Name+".addresses", p.Addresses.String()+" contains our own address "+a.String())
			}
		}
	}
}

// checkBypass finds what would have to be in a tunnel and outside of it.
func (l *loader) checkBypass() {
	inside := func(p netip.Prefix, at Pos, key string) {
		for _, b := range l.cfg.Bypass {
			l.work++
			if b.Bits() <= p.Bits() && b.Contains(p.Addr()) {
				l.report(at, key, p.String()+" lies within bypass "+b.String()+", so no packet would take the tunnel")
			}
		}
	}
	for i := range l.cfg.Pools {
		p := &l.cfg.Pools[i]
		inside(p.Addresses, p.Pos, "pools."+p.Name+".addresses")
	}
	for i := range l.cfg.Connections {
		for _, ch := range l.cfg.Connections[i].Children {
			for _, ts := range ch.RemoteTS {
				if !ts.Dynamic {
					inside(ts.Prefix, ch.Pos, "connections."+l.cfg.Connections[i].Name+".children."+ch.Name+".remote_ts")
				}
			}
		}
	}
}

// reportOverlap names both pools, at the one that came later.
func (l *loader) reportOverlap(a, b *Pool) {
	if l.before(b.Pos, a.Pos) {
		a, b = b, a
	}
	l.report(b.Pos, "pools."+b.Name+".addresses",
		b.Addresses.String()+" overlaps "+a.Addresses.String()+" of pool "+a.Name+" at "+a.Pos.String())
}

func (l *loader) before(a, b Pos) bool {
	return cmp.Or(cmp.Compare(l.order[a.File], l.order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) < 0
}

// checkSecrets finds connections that nobody can prove an identity for. For a
// pattern that may be meant: its secrets can come with the next reload.
func (l *loader) checkSecrets() {
	if l.incomplete {
		return
	}
	var none Problems
	for _, p := range l.peers {
		l.work++
		text := "no secret for " + p.remote.String()
		switch {
		case l.secretIDs.serves(p.local, p.remote):
		case !exactID(p.remote):
			none = append(none, Problem{p.at, "remote.id", text + ", so nobody can use this connection"})
		default:
			l.report(p.at, "remote.id", text+"; give one under secrets")
		}
	}
	l.noteSome(none, "more connections have no secret")
}

// resolveShards fills in the number of event loops. Each needs slots of its
// own, so there are never more than tunnels.
func (l *loader) resolveShards() {
	if l.cfg.Shards == 0 {
		l.cfg.Shards = min(runtime.GOMAXPROCS(0), MaxShards, l.cfg.XDP.Capacity)
	}
}

// sameFamily is true if some address of a set is of a's family.
func sameFamily(a netip.Addr, set []netip.Addr) bool {
	return slices.ContainsFunc(set, func(b netip.Addr) bool { return a.Is4() == b.Is4() })
}
