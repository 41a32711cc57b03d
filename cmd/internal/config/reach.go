package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/ikepulse/ikepulse/ike"
)

// lookAtPeers notes what nobody can use, and where it is not plain who gets what.
func (l *loader) lookAtPeers() {
	if l.incomplete || len(l.problems) > 0 {
		return
	}
	l.noteUnusedSecrets()
	slices.SortFunc(l.peers, func(a, b peer) int {
		l.work++
		return strings.Compare(a.connection, b.connection)
	})
	l.noteOurOwn()
	l.noteTwins()
	groups := l.byAddress()
	l.noteUnsaid(groups)
	l.noteSuites(groups)
}

// uses is what connections do with secrets.
type uses struct {
	closest map[pair]bool                  // to the peers of some connection for whom there is no other
	around  map[pair]bool                  // those that some connection's peers are among
	pairs   map[pair]bool                  // that connections are for
	locals  map[ike.Pattern][]ike.Identity // as whom they are for a pattern
}

func (l *loader) uses() uses {
	u := uses{map[pair]bool{}, map[pair]bool{}, map[pair]bool{}, map[ike.Pattern][]ike.Identity{}}
	for _, p := range l.peers {
		l.work++
		if s, ok := l.secretIDs.best(p.local, p.remote); ok {
			u.closest[s] = true
		}
		for wider := range p.remote.Wider {
			u.around[pair{p.local, wider}] = true
			u.around[pair{remote: wider}] = true
		}
		u.around[pair{remote: ike.Only(p.local)}] = true
		if !u.pairs[p.pair] {
			u.pairs[p.pair] = true
			u.locals[p.remote] = append(u.locals[p.remote], p.local)
		}
	}
	return u
}

// noteUnusedSecrets finds secrets that no peer of any connection would use.
func (l *loader) noteUnusedSecrets() {
	u := l.uses()
	var unused Problems
	for _, s := range l.cfg.Secrets {
		p := pair{s.Local, s.ID}
		switch fits, serves := l.below(p, u); {
		case serves || u.closest[p]:
		case fits || u.around[p]:
			unused = append(unused, Problem{s.Pos, "secrets", "nobody uses that of " + p.String() + ": there is a closer one for each connection that it fits"})
		default:
			unused = append(unused, Problem{s.Pos, "secrets", "nobody can use that of " + p.String() + ": no connection is for such a peer"})
		}
	}
	l.noteSome(unused, "more secrets that nobody uses")
}

// below reports whether a secret is for some of a connection's peers, or for all of
// them, and whether it is the closest to these there: one that names both of the two
// is closer, and for anybody one that names us is.
func (l *loader) below(p pair, u uses) (fits, serves bool) {
	for wider := range p.remote.Wider {
		l.work++
		if u.pairs[pair{p.local, wider}] {
			return true, true
		}
		if p.local != (ike.Identity{}) {
			continue
		}
		for _, own := range u.locals[wider] {
			l.work++
			closer := l.secretIDs.has(pair{own, p.remote}) || p.remote == ike.Anybody && l.secretIDs.has(pair{remote: ike.Only(own)})
			if fits = true; !closer {
				return true, true
			}
		}
	}
	return fits, false
}

// noteOurOwn finds connections whose peers may say that they are us. Everybody may
// where everybody is let in.
func (l *loader) noteOurOwn() {
	ours := map[ike.Pattern]ike.Identity{}
	for _, p := range l.peers {
		l.work++
		for wider := range ike.Only(p.local).Wider {
			if _, there := ours[wider]; !there && wider != ike.Anybody {
				ours[wider] = p.local
			}
		}
	}
	var mirrors Problems
	for _, p := range l.peers {
		if own, is := ours[p.remote]; is {
			mirrors = append(mirrors, Problem{p.at, "remote.id", fmt.Sprintf("%s allows %s, which is our own identity: a peer may present himself as us", p.remote, own)})
			delete(ours, p.remote)
		}
	}
	l.noteSome(mirrors, "more patterns let a peer present himself as us")
}

// noteTwins finds sites that are told apart by their addresses alone. Uniqueness does
// not go by those.
func (l *loader) noteTwins() {
	first := map[pair]*peer{}
	var twins Problems
	for i := range l.peers {
		l.work++
		switch p := &l.peers[i]; {
		case len(p.pins) == 0 || p.asks || p.unique == "never":
		case first[p.pair] == nil:
			first[p.pair] = p
		default:
			twins = append(twins, Problem{p.pos, "connections." + p.connection, fmt.Sprintf("it has the two identities of %s: "+
				"by INITIAL_CONTACT the peer of one ends the tunnels of the other; with unique: never it does not", first[p.pair].connection)})
		}
	}
	l.noteSome(twins, "more connections with the identities of another")
}

// groups are the connections, in the order of their names, by where their peers call
// from: a written address, or else anywhere, which is the zero address.
type groups map[netip.Addr][]*peer

func (l *loader) byAddress() groups {
	g := groups{}
	for i := range l.peers {
		p := &l.peers[i]
		if p.asks {
			continue
		}
		pins := p.pins
		if len(pins) == 0 {
			pins = []netip.Addr{{}}
		}
		for _, a := range pins {
			l.work++
			g[a] = append(g[a], p)
		}
	}
	return g
}

// noteUnsaid finds peers that several connections are for, as several of us. Who
// does not say whom he wants gets the first by name.
func (l *loader) noteUnsaid(g groups) {
	behind := map[*peer]map[string]bool{} // the first, and those that it goes before
	for _, group := range g {
		first := map[ike.Pattern]*peer{}
		for _, p := range group {
			l.work++
			f := first[p.remote]
			switch {
			case f == nil:
				first[p.remote] = p
				continue
			case behind[f] == nil:
				behind[f] = map[string]bool{}
			}
			behind[f][p.connection] = true
		}
	}
	var unsaid Problems
	for f, names := range behind {
		unsaid = append(unsaid, Problem{f.at, "remote.id", fmt.Sprintf("%s is also that of %s, under other local ids: a peer that names none of them gets %s, the first by name",
			f.remote, someOf(slices.Sorted(maps.Keys(names))), f.connection)})
	}
	l.noteSome(unsaid, "more connections are the first of several for the same peers")
}

// maxCompared is how many different lists of proposals are compared with each other.
const maxCompared = 32

// noteSuites finds connections whose peers may agree on what only another takes: in
// IKE_SA_INIT nobody knows yet who calls, and the first by name goes before.
func (l *loader) noteSuites(g groups) {
	refused := map[*peer]*peer{}
	for _, a := range slices.SortedFunc(maps.Keys(g), netip.Addr.Compare) {
		var different []*peer
		seen := map[string]bool{}
		for _, p := range g[a] {
			l.work++
			list := strings.Join(p.proposals, ",")
			if seen[list] || len(different) == maxCompared {
				continue
			}
			seen[list] = true
			apart := func(before *peer) bool {
				l.work++
				return !l.checks.Common(before.proposals, p.proposals)
			}
			if i := slices.IndexFunc(different, apart); i >= 0 && refused[p] == nil {
				refused[p] = different[i]
			}
			different = append(different, p)
		}
	}
	var apart Problems
	for p, before := range refused {
		apart = append(apart, Problem{p.pos, "connections." + p.connection, fmt.Sprintf("its proposals and those of %s have nothing in common: "+
			"a peer who offers both gets those of %[1]s, before it says who it is, and is then refused", before.connection)})
	}
	l.noteSome(apart, "more connections with proposals that have nothing in common with others'")
}

// someOf names the first few.
func someOf(names []string) string {
	if len(names) <= maxAlike {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxAlike], ", "), len(names)-maxAlike)
}
