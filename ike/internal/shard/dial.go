package shard

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/directory"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wheel"
)

// dialer calls the peer of one connection, and knows the one SA that it has
// called for. It belongs to the shard that owns the connection.
type dialer struct {
	conn    *policy.Connection
	id      uint32 // place in the list, and in the wheel
	spi     uint64 // of the SA in the making or up; 0: none
	up      bool
	again   bool // call again after a failure
	anew    bool // call again as soon as the SA has gone
	kept    bool // a person has ended it: it stays down until he says so
	tries   int  // calls in a row that brought no tunnel which lasted
	asking  bool // the peer's names are being resolved
	called  netip.Addr
	tried   []netip.Addr // of the peer's, since all have been
	lastErr error
	waiting []chan<- error // who asked for the tunnel

	since mono.Time // it is to be up and is not
	why   string    // it went, or could not be had
	dueAt mono.Time // the next call; 0: none is due
}

// dialers are those of one shard.
type dialers struct {
	shard  *Shard
	list   []*dialer
	byConn map[*policy.Connection]*dialer
	due    *wheel.Wheel
}

const (
	// The pause after the nth failure doubles from the first to the last.
	firstPause = 4 * time.Second
	lastPause  = 5 * time.Minute
	// startPace spreads the first calls of a gateway with many.
	startPace = 5 * time.Millisecond
	// lasting is how long a tunnel must have been up to be none that failed.
	lasting = time.Minute
)

var (
	errNoRemote   = errors.New("the connection has no address to call")
	errNoLocal    = errors.New("no listening address is of the peer's family")
	errClosing    = errors.New("the gateway is stopping")
	errTerminated = errors.New("terminated")
)

// start has the shard call the connections that are to be up from the start.
func (ds *dialers) init(s *Shard) {
	*ds = dialers{shard: s, byConn: map[*policy.Connection]*dialer{}, due: wheel.New(granularity)}
	now := s.conf.Clock()
	for _, c := range s.conf.Policy.Connections {
		if c.Start && s.group.ownerIndex(c) == s.index {
			d := ds.of(c)
			d.again, d.since = true, now
			ds.set(d, now.Add(time.Duration(len(ds.list))*startPace))
		}
	}
}

// pair is us and the peer that is called.
func (d *dialer) pair() directory.Pair {
	id, _ := d.conn.RemoteID.Exact()
	return directory.PairOf(d.conn, id, netip.Addr{})
}

// of is the connection's dialer.
func (ds *dialers) of(c *policy.Connection) *dialer {
	d := ds.byConn[c]
	if d == nil {
		d = &dialer{conn: c, id: uint32(len(ds.list))}
		ds.list = append(ds.list, d)
		ds.byConn[c] = d
	}
	return d
}

func (ds *dialers) next() mono.Time { return ds.due.Next() }

func (ds *dialers) set(d *dialer, at mono.Time) {
	d.dueAt = at
	ds.due.Set(d.id, at)
}

func (ds *dialers) cancel(d *dialer) {
	d.dueAt = 0
	ds.due.Cancel(d.id)
}

// advance makes the calls that are due.
func (ds *dialers) advance(now mono.Time) {
	ds.due.Advance(now, func(id uint32) {
		defer ds.shard.contain(now)
		d := ds.list[id]
		d.dueAt = 0
		ds.redial(now, d)
	})
}

// redial calls again, unless the peer has called us meanwhile.
func (ds *dialers) redial(now mono.Time, d *dialer) {
	anew := d.anew
	d.anew = false
	if !anew && ds.has(d) {
		return
	}
	switch e := ds.shard.table.bySPI[d.spi]; {
	case e == nil:
		ds.dial(now, d)
	case d.up: // the peer has deleted its Child SA
		d.anew = true
		ds.shard.do(now, e, sa.Terminate{})
	}
}

// call brings a tunnel up, unless it is up or under way. wait, which must have
// room, hears how it ends; it may be nil. An SA that is being deleted, or whose
// Child SA the peer has deleted, is no tunnel: another one comes in its place.
func (ds *dialers) call(now mono.Time, c *policy.Connection, wait chan<- error) {
	d := ds.of(c)
	d.again, d.kept = c.Start || c.Restart, false
	if d.since == 0 {
		d.since = now
	}
	if wait != nil {
		d.waiting = append(d.waiting, wait)
	}
	switch e := ds.shard.table.bySPI[d.spi]; {
	case ds.has(d) && (e == nil || d.childless(e)):
		d.answer(nil)
	case e == nil:
		ds.cancel(d)
		ds.dial(now, d)
	case d.lastErr == errTerminated || d.childless(e):
		d.anew = true
		ds.shard.do(now, e, sa.Terminate{})
	case d.up:
		d.answer(nil)
	}
}

// childless reports whether the SA of a dialer has lost its Child SA.
func (d *dialer) childless(e *entry) bool { return d.up && e.sa.InSPI() == 0 }

// dial begins a handshake, or has the names resolved first that stand in its way.
func (ds *dialers) dial(now mono.Time, d *dialer) {
	s := ds.shard
	switch {
	case s.closing != nil:
		d.answer(errClosing)
	case d.asking: // it goes on when the answer comes
	case named(d.conn):
		d.asking = true
		s.group.lookups.ask(s, d)
	case len(d.conn.Hosts) == 0:
		ds.putOff(now, d, errNoRemote)
	default:
		ds.dialOne(now, d, addressesOf(d.conn))
	}
}

// resolved goes on with a call whose names have been resolved, if it is still
// wanted: meanwhile the peer may have called us, or a person have ended it.
func (ds *dialers) resolved(now mono.Time, d *dialer, to []netip.Addr, err error) {
	d.asking = false
	switch {
	case ds.shard.closing != nil:
		d.answer(errClosing)
	case d.kept:
		d.answer(errTerminated)
	case ds.has(d):
		d.answer(nil)
	case err != nil:
		ds.putOff(now, d, err)
	default:
		ds.cancel(d) // what was due meanwhile is this
		ds.dialOne(now, d, to)
	}
}

// has reports whether the peer that a dialer calls has a tunnel with us, whoever has
// called: one whom a pattern stands for is not called, and others may be up.
func (ds *dialers) has(d *dialer) bool {
	return exact(d.conn) && ds.shard.group.carried(d.conn)
}

// exact reports whether a connection's peer is one and known.
func exact(c *policy.Connection) bool {
	_, ok := c.RemoteID.Exact()
	return ok
}

// putOff takes note that there is nobody to call now.
func (ds *dialers) putOff(now mono.Time, d *dialer, err error) {
	d.answer(err)
	d.why = err.Error()
	ds.later(now, d)
}

// pick is the first of the peer's addresses that has not been tried since all
// have been.
func (d *dialer) pick(to []netip.Addr) netip.Addr {
	d.tried = slices.DeleteFunc(d.tried, func(a netip.Addr) bool { return !slices.Contains(to, a) })
	next := slices.IndexFunc(to, func(a netip.Addr) bool { return !slices.Contains(d.tried, a) })
	if next < 0 {
		d.tried, next = nil, 0
	}
	d.called = to[next]
	return d.called
}

// miss takes note that it is the turn of another address.
func (d *dialer) miss() { d.tried = append(d.tried, d.called) }

// dialOne begins a handshake with one of the peer's addresses, of which there is
// at least one.
func (ds *dialers) dialOne(now mono.Time, d *dialer, to []netip.Addr) {
	s := ds.shard
	path, err := s.conf.pathTo(d.conn, d.pick(to), s.group.isAbsent)
	if err != nil {
		ds.putOff(now, d, err)
		return
	}
	e := &entry{sa: sa.NewInitiator(&s.env, s.newSPI(), d.conn, path), dial: d}
	d.spi, d.lastErr = e.sa.SPI(), nil
	e.placed = true
	s.group.total.Add(1) // the configuration bounds these
	s.table.add(e)
	s.group.registrar.note(func(r *directory.Directory) { r.Calls(d.pair(), 1) })
	s.do(now, e, sa.Initiate{})
}

// from are our addresses that a connection may be called from.
func (c *Config) from(conn *policy.Connection) []netip.Addr {
	if len(conn.Locals) == 0 {
		return c.Listen
	}
	return conn.Locals
}

// pathTo is how to call a connection's peer at an address: from the first of
// ours that is here, else from the first.
func (c *Config) pathTo(conn *policy.Connection, remote netip.Addr, absent func(netip.Addr) bool) (path sa.Path, err error) {
	remote = remote.Unmap()
	err = errNoLocal
	for _, local := range c.from(conn) {
		if local.Unmap().Is4() != remote.Is4() || err == nil && absent(local) {
			continue
		}
		path, err = sa.Path{Local: netip.AddrPortFrom(local, c.IKEPort), Remote: netip.AddrPortFrom(remote, c.IKEPort)}, nil
		if !absent(local) {
			break
		}
	}
	return path, err
}

// heard takes note of what becomes of the SA.
func (d *dialer) heard(ev sa.Event) {
	switch ev.Kind {
	case sa.ChildUp:
		d.up, d.since, d.lastErr = true, 0, nil
		if !d.anew {
			d.answer(nil)
		}
	case sa.ChildGone:
		d.lastErr = ev.Err // nil: the peer has deleted it
	case sa.Established, sa.Closed:
		if d.lastErr == nil {
			d.lastErr = failure(ev)
		}
	}
}

// failure is what a caller is told about an event that came instead of a Child
// SA; nil if it tells of none.
func failure(ev sa.Event) error {
	switch {
	case ev.Kind == sa.Established && ev.Err == nil && ev.Notify == 0:
		return nil
	case ev.Notify != 0:
		return fmt.Errorf("%v: the peer says %v", what(ev), ev.Notify)
	case ev.Err != nil:
		return fmt.Errorf("%v: %w", what(ev), ev.Err)
	}
	return errors.New(what(ev))
}

func what(ev sa.Event) string {
	if ev.Kind == sa.Established {
		return "no child SA"
	}
	return ev.Reason.String()
}

// hungUp takes note of the end of the SA, and says when to call again.
func (ds *dialers) hungUp(now mono.Time, e *entry) {
	d := e.dial
	wasUp, anew := d.up, d.anew
	d.spi, d.up, d.anew = 0, false, false
	ds.shard.group.registrar.note(func(r *directory.Directory) { r.Calls(d.pair(), -1) })
	if anew {
		ds.set(d, now)
		d.anew = true
		return
	}
	if ds.has(d) { // he has called at the same time
		d.answer(nil)
		d.since = 0
		return
	}
	d.answer(d.lastErr)
	d.why = whyGone(e.reason, d.lastErr)
	if wasUp {
		ds.fallen(now, d, now.Sub(e.sa.Created()), e.reason)
		return
	}
	d.miss()
	ds.later(now, d)
}

// fallen takes note that a tunnel has gone which was up for some time. What
// deletes each tunnel as soon as it is up is called as seldom as what gives
// none. After a death it is the turn of the peer's next address; one that says
// that it deletes is there.
func (ds *dialers) fallen(now mono.Time, d *dialer, lasted time.Duration, reason sa.Reason) {
	d.since = now
	if lasted >= lasting {
		d.tries = 0
	}
	if lasted < lasting || reason == sa.PeerDead {
		d.miss()
	}
	switch reason {
	case sa.ProtocolError, sa.LocalFailure:
	default:
		if !d.conn.Start { // what it was called for is over
			return
		}
	}
	ds.later(now, d)
}

// fell takes note that the last tunnel of a connection has gone which the peer
// had called us for, or whose Child SA alone has.
func (ds *dialers) fell(now mono.Time, c *policy.Connection, lasted time.Duration, reason sa.Reason, err error) {
	d := ds.of(c)
	d.why = whyGone(reason, err)
	ds.fallen(now, d, lasted, reason)
}

// later calls again after a pause, if that is wanted.
func (ds *dialers) later(now mono.Time, d *dialer) {
	if !d.again || d.kept || ds.shard.closing != nil {
		return
	}
	ds.set(d, now.Add(ds.pause(d.tries)))
	d.tries++
}

// whyGone says in a few words why there is no tunnel.
func whyGone(reason sa.Reason, err error) string {
	switch {
	case errors.Is(err, sa.ErrUnsent):
		return err.Error()
	case reason == sa.DeletedByPeer:
		return "the peer deleted it"
	case reason == sa.PeerDead:
		return "the peer is dead"
	case reason == sa.HandshakeTimeout:
		return "the peer does not answer"
	case err != nil:
		return err.Error()
	}
	return reason.String()
}

// pause grows with each failure, and is shortened by chance, at most by an
// eighth, so that gateways that failed together do not come back together.
func (ds *dialers) pause(tries int) time.Duration {
	p := lastPause
	if tries < 10 {
		p = min(firstPause<<tries, lastPause)
	}
	var b [1]byte
	ds.shard.read(b[:])
	return p - p*time.Duration(b[0])/(8*256)
}

// answer tells those who wait, and forgets them.
func (d *dialer) answer(err error) {
	for _, c := range d.waiting {
		c <- err
	}
	d.waiting = nil
}

// terminated keeps a tunnel that a person has ended from being called again.
func (ds *dialers) terminated(d *dialer) {
	d.again, d.anew, d.kept = false, false, true
	d.lastErr = errTerminated
	ds.cancel(d)
}

// terminate ends the calls of the connections that match, and tells how many of
// them had no SA.
func (ds *dialers) terminate(m Match) (idle int) {
	for _, d := range ds.list {
		if m != "*" && string(m) != d.conn.Name {
			continue
		}
		if (d.dueAt != 0 || d.asking) && ds.shard.table.bySPI[d.spi] == nil && !d.kept {
			idle++
		}
		ds.terminated(d)
	}
	return idle
}
