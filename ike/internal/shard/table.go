package shard

import (
	"encoding/binary"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// entry is one SA and what its shard knows of it beside. Only the shard's
// goroutine touches it.
type entry struct {
	id      uint32 // place in the slab, and in the wheel
	gone    bool   // no longer in the tables
	carrier bool   // it has a Child SA that is up
	sa      *sa.SA
	pending *pending // nil once the peer is authenticated
	dial    *dialer  // who called, for an SA that we began
	held    holdings
	heard   mono.Time // newest ESP that proved life, at the last judgement
	placed  bool      // it has one of the tunnels' places
	checkAt mono.Time // when to judge whether the peer lives; 0: not yet, or never
	told    *told     // nil: the peer has never moved
	driftAt mono.Time // when a drift was last taken up
	cut     bool      // our own address has gone since it was last judged
	reason  sa.Reason // of its end
}

// pending is what an SA needs only as long as its peer may be anybody.
type pending struct {
	place    *halfopen.Place // with the key of its first message
	answered bool            // that message is
	size     int             // and so long
	job      *job            // its key exchange; nil before it is asked for
	// proven tells that the peer has returned a cookie, so that the address
	// is his.
	proven bool
	// credit is how many bytes may still go to the address that the last
	// packet came from: as many as have come from it.
	addr   netip.AddrPort
	credit int
}

func (pd *pending) rank() rank {
	if pd.proven {
		return rankProven
	}
	return rankUnproven
}

// table finds the SAs of one shard.
type table struct {
	slab    []*entry
	free    []uint32
	bySPI   map[uint64]*entry       // our IKE SPI
	byInit  map[halfopen.Key]*entry // by the first message, until AUTH. RFC 7296 §2.1
	byChild map[uint32]*entry       // our inbound ESP SPI
}

func newTable() table {
	return table{bySPI: map[uint64]*entry{}, byInit: map[halfopen.Key]*entry{}, byChild: map[uint32]*entry{}}
}

// add gives e a place.
func (t *table) add(e *entry) {
	if n := len(t.free); n > 0 {
		e.id, t.free = t.free[n-1], t.free[:n-1]
		t.slab[e.id] = e
	} else {
		e.id = uint32(len(t.slab))
		t.slab = append(t.slab, e)
	}
	t.bySPI[e.sa.SPI()] = e
	if e.pending != nil {
		t.byInit[e.pending.place.Key()] = e
	}
}

// remove takes e out.
func (t *table) remove(e *entry) {
	delete(t.bySPI, e.sa.SPI())
	if e.pending != nil {
		delete(t.byInit, e.pending.place.Key())
	}
	t.slab[e.id] = nil
	t.free = append(t.free, e.id)
}

// shardShift is where the shard's index stands in our IKE SPIs: the highest
// byte. The other 56 bits are random.
const shardShift = 56

// MaxShards is what the index has room for.
const MaxShards = 1 << (64 - shardShift)

// newSPI is an IKE SPI of this shard that is not in use. An SPI of 0 means
// "none yet" on the wire. RFC 7296 §3.1
func (s *Shard) newSPI() uint64 {
	for {
		var b [8]byte
		s.read(b[:])
		b[0] = byte(s.index)
		spi := binary.BigEndian.Uint64(b[:])
		if s.table.bySPI[spi] == nil && spi != 0 {
			return spi
		}
	}
}

// settle brings the tables and the wheel up to date after an SA was touched.
func (s *Shard) settle(now mono.Time, e *entry) {
	if e.gone {
		return
	}
	state := e.sa.State()
	if state == sa.Gone {
		s.drop(now, e)
		return
	}
	switch pd := e.pending; {
	case pd == nil:
	case authenticated(state):
		s.trust(now, e)
	case state == sa.HalfOpen && !pd.answered:
		pd.answered = true
		s.group.gate.answered(now, pd.place)
	}
	if state == sa.Up && (e.checkAt == 0 || e.sa.Exhausted()) {
		s.check(now, e) // which may settle it again
		if e.gone {
			return
		}
	}
	s.wheel.Set(e.id, mono.Earliest(e.sa.Deadline(), e.checkAt))
}

// authenticated tells that the peer of an SA in this state has proved who it
// is. For an initiator the state of its own AUTH does not count.
func authenticated(st sa.State) bool {
	return st == sa.AuthPending || st == sa.Up || st == sa.Deleting
}

// trust ends the precautions against a stranger.
func (s *Shard) trust(now mono.Time, e *entry) {
	s.group.gate.completed(now, e.pending.place, e.sa.PeerID())
	delete(s.table.byInit, e.pending.place.Key())
	e.pending = nil
}

// drop takes an SA out of everything. Whatever it has left outside is taken
// back, so that nothing outlives its SA, whichever way it ended.
func (s *Shard) drop(now mono.Time, e *entry) {
	if e.gone {
		return
	}
	e.gone = true
	// Also if an edge panics. Who waits for its place, or for its end, hears of it
	// when nothing of it is left.
	defer e.sa.Wipe()
	defer s.recall(now, e)
	defer s.leave(e)
	s.wheel.Cancel(e.id)
	s.table.remove(e)
	if e.placed {
		s.group.total.Add(-1)
	}
	if pd := e.pending; pd != nil {
		s.group.gate.done(pd.place)
		if pd.job != nil {
			s.group.workers.cancel(pd.job)
		}
	}
	s.reclaim(now, e)
}

// recall has those who call hear that an SA has gone.
func (s *Shard) recall(now mono.Time, e *entry) {
	if e.dial != nil {
		s.dialers.hungUp(now, e)
	}
	if c := e.sa.Conn(); c != nil && e.reason == sa.PeerDead && c.Restart && !c.Start { // which is called anyhow
		owner := s.group.owner(c)
		owner.post(func(now mono.Time) { owner.dialers.call(now, c, nil) })
	}
}
