package config

import "github.com/ikepulse/ikepulse/ike"

// identity reads an identity or a pattern of identities.
func (v value) identity() (ike.Pattern, bool) {
	s, ok := v.text()
	if !ok {
		return ike.Pattern{}, false
	}
	p, err := ike.ParsePattern(s)
	if err != nil {
		v.fail("%v", err)
	}
	return p, err == nil
}

// exactIdentity reads one of ours.
func (v value) exactIdentity() (ike.Identity, bool) {
	p, ok := v.identity()
	id, exact := p.Exact()
	if ok && !exact {
		v.fail("%s is a pattern; our own identity must be exact", p)
	}
	return id, ok && exact
}

// pair is two who share a secret or have a connection: ours, and the peer's. Who
// may be any of us is the zero identity.
type pair struct {
	local  ike.Identity
	remote ike.Pattern
}

func (p pair) String() string {
	if p.local == (ike.Identity{}) {
		return p.remote.String()
	}
	return p.local.String() + " and " + p.remote.String()
}

// pairSet answers which pairs some member is for, in a time that does not grow
// with its size.
type pairSet struct {
	members map[pair]Pos
	within  map[pair]struct{} // those that some member falls under
}

func newPairSet() pairSet {
	return pairSet{members: map[pair]Pos{}, within: map[pair]struct{}{}}
}

// add puts in a member, unless it is there: then it returns where it was given.
func (s pairSet) add(p pair, at Pos) (first Pos, twice bool) {
	if first, twice = s.members[p]; twice {
		return first, true
	}
	s.members[p] = at
	for wider := range p.remote.Wider {
		s.within[pair{p.local, wider}] = struct{}{}
	}
	return Pos{}, false
}

func (s pairSet) has(p pair) bool {
	_, found := s.members[p]
	return found
}

// best is the member that we and a peer share where no closer one is for him: the
// rule is that of ike.Secret. One that names us alone is for whoever has no better.
func (s pairSet) best(own ike.Identity, peer ike.Pattern) (pair, bool) {
	for wider := range peer.Wider {
		candidates := []pair{{own, wider}, {remote: wider}}
		if wider == ike.Anybody {
			candidates = []pair{{own, wider}, {remote: ike.Only(own)}, {remote: wider}}
		}
		for _, p := range candidates {
			if s.has(p) {
				return p, true
			}
		}
	}
	return pair{}, false
}

// serves reports whether some member is for us and a peer whom the pattern allows.
func (s pairSet) serves(own ike.Identity, peer ike.Pattern) bool {
	if _, found := s.best(own, peer); found {
		return true
	}
	_, ours := s.within[pair{own, peer}]
	_, anyone := s.within[pair{remote: peer}]
	return ours || anyone
}
