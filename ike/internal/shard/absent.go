package shard

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// returnPace spreads what is asked when an address of ours has come back.
const returnPace = 100 * time.Microsecond

// SetAbsent names those of our addresses that this host does not have. While one
// is away nothing can be sent from there, so a peer who does not answer proves
// nothing. Any goroutine calls it, one at a time.
func (g *Group) SetAbsent(addresses []netip.Addr) {
	before := g.absent.Swap(&addresses)
	if before == nil {
		return // all were here, so far
	}
	back := slices.DeleteFunc(slices.Clone(*before), func(a netip.Addr) bool { return slices.Contains(addresses, a) })
	if len(back) == 0 {
		return
	}
	for _, s := range g.shards {
		s.post(func(now mono.Time) { s.onReturn(now, back) })
	}
}

func (g *Group) isAbsent(a netip.Addr) bool {
	absent := g.absent.Load()
	return absent != nil && slices.Contains(*absent, a)
}

// onReturn has the SAs of addresses that are back go on: their handshakes, their
// open questions, and the calls that are put off.
func (s *Shard) onReturn(now mono.Time, back []netip.Addr) {
	at := now
	for _, e := range s.table.slab {
		if e == nil || !slices.Contains(back, e.sa.Path().Local.Addr()) {
			continue
		}
		switch e.sa.State() {
		case sa.Up:
			at = at.Add(returnPace)
			e.cut, e.checkAt = true, at
			s.wheel.Set(e.id, mono.Earliest(e.sa.Deadline(), at))
		case sa.InitSent, sa.AuthSent:
			s.onMessage(now, func(now mono.Time) { s.do(now, e, sa.Again{}) })
		}
	}
	for _, d := range s.dialers.list {
		if d.again && d.spi == 0 && !d.up {
			at = at.Add(returnPace)
			s.dialers.set(d, at)
		}
	}
}

// cutOff tells that an SA is not to be judged now, since our address is away; it
// is judged when that is back. Then its open question is asked once more, from
// the first try.
func (s *Shard) cutOff(now mono.Time, e *entry) bool {
	if s.group.isAbsent(e.sa.Path().Local.Addr()) {
		e.cut, e.checkAt = true, 0
		return true
	}
	if !e.cut {
		return false
	}
	if e.cut = false; !e.sa.Outstanding() {
		return false
	}
	conf := e.sa.Conn().DPD
	e.checkAt = now.Add(max(conf.Delay, time.Second))
	s.do(now, e, sa.Again{})
	return true
}
