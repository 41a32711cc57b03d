package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/maps"
)

// A packet that we have authenticated passed XDP before, if XDP is where it
// came by. So an SPI whose authenticated tick moves again and again, while the
// tick of XDP stands, is one that XDP is blind for: it is on another interface,
// or something takes the packets past it.
const (
	// lookEvery: a pass over a million entries takes some milliseconds.
	lookEvery = 2 * time.Second
	// blindMoves is how often the one tick must have moved while the other
	// stood. Once it may be a daemon that had stood still: its sockets were
	// full of what XDP had seen long before.
	blindMoves = 3
	// behindTicks is how far apart the two may be without a meaning.
	behindTicks = 4
	// patience is for how many looks a suspect may be silent.
	patience = 60
	// maxSuspects bounds the memory: the number says enough.
	maxSuspects = 4096
)

// sight finds the SPIs that XDP does not see.
type sight struct {
	each  func(func(slot, spi, seen, auth uint32)) // of the hot entries
	peer  func(spi uint32) netip.Addr
	ours  func(netip.Addr) bool // who is on this host comes by no interface that XDP is on
	fresh int32                 // ticks between two looks, and some

	links    []uint32 // that XDP was attached by, at the last look
	suspects map[uint32]suspect
	blind    atomic.Int64
}

// suspect is an SPI that was behind.
type suspect struct {
	seen, auth uint32
	moves      int // of auth alone
	silent     int // looks without one
	here       bool
}

// view is what XDP is attached by, and whether that is all that is wanted.
type view struct {
	links []uint32
	whole bool
}

func newSight(set *maps.Set) *sight {
	return &sight{each: set.Hot.Each, ours: hostAddress, fresh: int32(lookEvery/set.Clock.Tick()) + behindTicks,
		peer: func(spi uint32) netip.Addr {
			sa, _, _ := set.SAs.Get(spi) // one that is gone is found out by the next look
			return sa.Tuple.Peer.Addr()
		}}
}

// hostAddress tells whether an address is one of this host's.
func hostAddress(a netip.Addr) bool {
	if !a.IsValid() || a.IsLoopback() {
		return a.IsValid()
	}
	routes, err := netlink.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

// look compares the ticks with those of the last look; now is the present
// tick. Where XDP is not attached as is wanted, that is what is wrong, and not
// this; and when it has just been, nothing is known yet.
func (s *sight) look(now uint32, v view) (blind int) {
	if !v.whole || !slices.Equal(v.links, s.links) {
		s.links, s.suspects = v.links, nil
		s.blind.Store(0)
		return 0
	}
	next, room := map[uint32]suspect{}, maxSuspects-len(s.suspects)
	s.each(func(_, spi, seen, auth uint32) {
		if auth == 0 || seen != 0 && int32(auth-seen) <= behindTicks {
			return
		}
		was, known := s.suspects[spi]
		switch {
		case known && was.seen == seen:
			if was = s.moved(spi, was, auth); was.silent <= patience {
				next[spi] = was
			}
		case known:
			next[spi] = suspect{seen: seen, auth: auth}
		case room > 0 && int32(now-auth) <= s.fresh:
			room--
			next[spi] = suspect{seen: seen, auth: auth}
		}
		if next[spi].blind() {
			blind++
		}
	})
	s.suspects = next
	s.blind.Store(int64(blind))
	return blind
}

// moved is a suspect one look later.
func (s *sight) moved(spi uint32, was suspect, auth uint32) suspect {
	switch {
	case was.moves == blindMoves: // it stays what it is until XDP sees it
	case was.auth == auth:
		was.silent++
	default:
		was.moves, was.silent = was.moves+1, 0
		was.here = was.moves == blindMoves && s.ours(s.peer(spi))
	}
	was.auth = auth
	return was
}

func (s suspect) blind() bool { return s.moves == blindMoves && !s.here }

// keepLooking looks until ctx ends, and says once that XDP is blind, and once
// that it is not any more.
func (d *daemon) keepLooking(ctx context.Context) error {
	if d.sight == nil {
		return nil
	}
	next := time.NewTicker(lookEvery)
	defer next.Stop()
	before := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		blind := d.sight.look(d.clock.TickAt(d.clock.Now()), d.keeper.view())
		switch {
		case blind > 0 && before == 0:
			d.Log.Warn("XDP does not see ESP that arrives and is authentic: it may be on the wrong interface", "tunnels", blind)
		case blind == 0 && before > 0:
			d.Log.Info("no tunnel is known any more whose ESP XDP does not see")
		}
		before = blind
	}
}

// sightProblem says for how many tunnels XDP is blind.
func sightProblem(x *XDP) string {
	if x.Blind == 0 {
		return ""
	}
	var on []string
	for _, a := range x.Attachments {
		on = append(on, a.Interface)
	}
	tunnels := fmt.Sprintf("%d tunnels", x.Blind)
	switch {
	case x.Blind == 1:
		tunnels = "1 tunnel"
	case x.Blind >= maxSuspects:
		tunnels += " or more"
	}
	return fmt.Sprintf("XDP on %s does not see the ESP of %s that arrives here: is that the right interface? ikepulse attach puts it on another, too; ikepulse stats shows what it sees",
		strings.Join(on, ", "), tunnels)
}
