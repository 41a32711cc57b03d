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

// serves reports whether some member is for us and a peer whom the pattern allows.
// One that names us alone is for whoever has no better.
func (s pairSet) serves(own ike.Identity, peer ike.Pattern) bool {
	if _, found := s.members[pair{remote: ike.Only(own)}]; found {
		return true
	}
	for _, local := range []ike.Identity{own, {}} {
		if _, found := s.within[pair{local, peer}]; found {
			return true
		}
		for wider := range peer.Wider {
			if _, found := s.members[pair{local, wider}]; found {
				return true
			}
		}
	}
	return false
}
