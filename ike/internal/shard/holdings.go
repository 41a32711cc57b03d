package shard

import (
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// holdings is what an SA has outside of itself, as the shard carried it out. It
// is the shard's own account: when an SA must go without being asked, because a
// panic has made its state worthless, everything can still be taken back.
type holdings struct {
	stored   bool // a record is in the store
	admitted bool // the directory was asked to admit it
	children []child
}

// child is what one Child SA has outside. It begins with the SPI.
type child struct {
	inSPI, outSPI     uint32
	path              sa.Path
	tracked           bool
	inbound, outbound bool
}

// child is the account of an inbound SPI, nil if there is none.
func (h *holdings) child(inSPI uint32) *child {
	for i := range h.children {
		if h.children[i].inSPI == inSPI {
			return &h.children[i]
		}
	}
	return nil
}

func (h *holdings) add(inSPI uint32) {
	h.children = append(h.children, child{inSPI: inSPI})
}

func (h *holdings) forget(inSPI uint32) {
	for i := range h.children {
		if h.children[i].inSPI == inSPI {
			h.children = append(h.children[:i], h.children[i+1:]...)
			return
		}
	}
}

func (h *holdings) empty() bool { return !h.stored && !h.admitted && len(h.children) == 0 }

// allocSPI gives the SA that is being worked on an inbound SPI.
func (s *Shard) allocSPI(now mono.Time) (uint32, bool) {
	spi, ok := s.alloc(int64(now))
	if ok {
		s.current.held.add(spi)
		s.table.byChild[spi] = s.current
	}
	return spi, ok
}

// The removals below cannot fail for an SA: there is nothing that it could do
// about it. What an edge refuses to remove is counted.

func (s *Shard) removeOutbound(e *entry, inSPI uint32) {
	if c := e.held.child(inSPI); c != nil && c.outbound {
		c.outbound = false
		s.edgeFailed(s.plane.RemoveOutbound(c.inSPI, c.outSPI))
	}
}

func (s *Shard) removeInbound(e *entry, inSPI uint32) {
	if c := e.held.child(inSPI); c != nil && c.inbound {
		c.inbound = false
		s.edgeFailed(s.plane.RemoveInbound(c.inSPI, c.outSPI))
	}
}

// untrack ends an inbound SPI. A slot whose entry would not go is not given
// back: it must not be met again under another SA.
func (s *Shard) untrack(now mono.Time, e *entry, inSPI uint32) {
	c := e.held.child(inSPI)
	if c == nil {
		return
	}
	tracked, path := c.tracked, c.path
	e.held.forget(inSPI)
	delete(s.table.byChild, inSPI)
	if tracked && s.edgeFailed(s.edges.Tracker.Untrack(inSPI, path.Local, path.Remote)) {
		return
	}
	s.freeSPI(inSPI, int64(now))
}

func (s *Shard) forget(e *entry) {
	if e.held.stored {
		e.held.stored = false
		s.edgeFailed(s.edges.Store.Delete(e.sa.SPI()))
	}
}

// reclaim takes back all that an SA still has outside, in the order of a
// removal: nothing goes out, nothing comes in, the SPI is nobody's.
func (s *Shard) reclaim(now mono.Time, e *entry) {
	if e.held.empty() {
		return
	}
	s.count[cReclaimed]++
	for len(e.held.children) > 0 {
		spi := e.held.children[0].inSPI
		s.removeOutbound(e, spi)
		s.removeInbound(e, spi)
		s.untrack(now, e, spi)
	}
	s.forget(e)
}

// edgeFailed counts an edge's refusal of what must not fail.
func (s *Shard) edgeFailed(err error) bool {
	if err != nil {
		s.count[cEdgeErrors]++
	}
	return err != nil
}
