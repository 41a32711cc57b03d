package shard

import (
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wheel"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Shard owns some of the gateway's SAs. Except for its inboxes, everything in
// it belongs to the one goroutine that runs its loop: an SA, the tables that
// find it, the wheel, the data plane object. Other goroutines put datagrams
// into the inboxes and post messages, and never wait for it.
type Shard struct {
	index int
	group *Group
	conf  *Config
	edges Edges

	ike   stream  // messages for an SA, and from it
	auth  stream  // IKE_AUTH requests, whose senders have proved nothing yet
	first mailbox // first messages that have a place
	esp   stream  // ESP from the peers
	inner stream  // packets that are to be sealed
	drift stream  // SPIs whose packets came from elsewhere
	mail  mailbox
	wake  chan struct{} // holds one: there is something to do

	plane   DataPlane
	alloc   func(now int64) (uint32, bool)
	freeSPI func(spi uint32, now int64)
	env     sa.Env

	table   table
	wheel   *wheel.Wheel
	dialers dialers
	ending  atomic.Bool // the end is to begin
	closing *closing    // nil until it has

	current *entry // the SA that is being worked on
	out     sa.Effects
	record  []byte
	alarm   <-chan time.Time
	alarmAt mono.Time
	seq     uint64
	count   counters
	lag     lag
	wokenAt atomic.Int64 // when something came first since the turn began; 0: nothing has
}

const (
	// granularity is how late a deadline may come.
	granularity = time.Millisecond
	// share is how many packets of each kind may go before the others are
	// looked at again.
	share = 64
	// handshakeShare is the same for what takes some 50 µs each.
	handshakeShare = 16

	ikeInboxPackets  = 4096
	ikeInboxBytes    = 4 << 20
	authInboxPackets = 16384
	authInboxBytes   = 16 << 20
	espInboxPackets  = 4096
	espInboxBytes    = 8 << 20
	driftPackets     = 4096 // as many peers as may lose their mapping at once
	driftBytes       = driftPackets * 4
	mailboxMessages  = 4096
)

func newShard(g *Group, index int) *Shard {
	s := &Shard{index: index, group: g, conf: &g.conf, edges: g.conf.Edges,
		ike:   stream{inbox: inbox{maxPackets: ikeInboxPackets, maxBytes: ikeInboxBytes}},
		auth:  stream{inbox: inbox{maxPackets: authInboxPackets, maxBytes: authInboxBytes}},
		first: mailbox{max: 2 * g.conf.Limits.Max}, // of each place: its message, and one that comes again
		esp:   stream{inbox: inbox{maxPackets: espInboxPackets, maxBytes: espInboxBytes}},
		inner: stream{inbox: inbox{maxPackets: espInboxPackets, maxBytes: espInboxBytes}},
		drift: stream{inbox: inbox{maxPackets: driftPackets, maxBytes: driftBytes}},
		mail:  mailbox{max: mailboxMessages},
		wake:  make(chan struct{}, 1),
		table: newTable(),
		wheel: wheel.New(granularity),
		// What grows beyond would leave keys behind.
		record: make([]byte, 0, sa.RecordSize),
	}
	s.plane = g.conf.Edges.DataPlane(index)
	s.alloc, s.freeSPI = g.conf.Edges.AllocSPI(index), g.conf.Edges.FreeSPI(index)
	s.env = sa.Env{Rand: g.conf.Rand, Policy: g.conf.Policy, Listen: g.conf.Listen, AllocSPI: s.allocSPI,
		LastSent: func(spi uint32) mono.Time { return mono.Time(s.plane.LastSent(spi)) },
		Cookies:  g.gate.cookies.Around, FailedAuth: s.failedAuth,
		NATTPort: g.conf.NATTPort, HalfOpen: g.conf.HalfOpen, ForceEncap: g.conf.ForceEncap}
	s.dialers.init(s)
	return s
}

// run is the loop. It ends some time after a message that the end begins.
func (s *Shard) run() {
	began := s.conf.Clock()
	for {
		s.wokenAt.Store(0)
		more := s.turn(began)
		if s.finished() {
			return
		}
		since := began // what has come since then waits
		if !more {
			ended := s.conf.Clock()
			s.lag.add(ended, ended.Sub(began))
			since = s.sleep(ended)
		}
		// Where they share a processor, readers and workers come between two
		// turns.
		runtime.Gosched()
		began = s.conf.Clock()
		s.lag.add(began, began.Sub(since))
	}
}

// turn does what there is to do, and never much of one kind at once, so that
// no flood or surge can starve the answers to DPD probes and ESP.
func (s *Shard) turn(now mono.Time) (more bool) {
	if s.ending.Load() && s.closing == nil {
		s.beginClosing(now)
	}
	s.ike.some(share, func(p wire.Packet) { s.onIKE(now, p) })
	s.mail.some(handshakeShare, func(m message) { s.onMessage(now, m) })
	s.wheel.Advance(now, func(id uint32) { s.onDeadline(now, s.table.slab[id]) })
	s.dialers.advance(now)
	s.closeSome(now)
	s.auth.some(handshakeShare, func(p wire.Packet) { s.onIKE(now, p) })
	s.first.some(handshakeShare, func(m message) { s.onMessage(now, m) })
	s.esp.some(share, func(p wire.Packet) { s.onESP(now, p) })
	s.inner.some(share, func(p wire.Packet) { s.onInner(now, p.Data) })
	s.drift.some(share, func(p wire.Packet) { s.onDrift(now, p) })
	return s.ike.waiting() || s.mail.waiting() || s.auth.waiting() || s.first.waiting() ||
		s.esp.waiting() || s.inner.waiting() || s.drift.waiting()
}

// sleep waits for something to do, and tells since when there is.
func (s *Shard) sleep(now mono.Time) mono.Time {
	next := mono.Earliest(s.wheel.Next(), s.dialers.next(), s.nextClosing())
	if next != s.alarmAt {
		s.alarm, s.alarmAt = nil, next
		if next != 0 {
			s.alarm = s.conf.After(max(next.Sub(now), 0))
		}
	}
	select {
	case <-s.wake:
		if at := s.wokenAt.Load(); at != 0 {
			return mono.Time(at)
		}
		return s.conf.Clock() // it came as the turn began, and has been done
	case <-s.alarm:
		at := s.alarmAt
		s.alarmAt = 0
		return at
	}
}

// rouse makes the loop look at its inboxes. Any goroutine calls it.
func (s *Shard) rouse() {
	if s.wokenAt.Load() == 0 {
		s.wokenAt.CompareAndSwap(0, int64(s.conf.Clock()))
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// post has the loop run a message that must not be lost.
func (s *Shard) post(m message) {
	s.mail.post(m)
	s.rouse()
}

// offer has the loop run a message, unless it has too many already.
func (s *Shard) offer(m message) bool {
	ok := s.mail.offer(m)
	s.rouse()
	return ok
}

func (s *Shard) onMessage(now mono.Time, m message) {
	defer s.contain(now)
	m(now)
}

// begin says whose work is being done, for contain and for the data that the SA
// asks for on the way.
func (s *Shard) begin(e *entry) {
	s.current = e
	s.out.Reset()
}

// handle gives an SA a message of IKE.
func (s *Shard) handle(now mono.Time, e *entry, p wire.Packet) error {
	s.begin(e)
	if e.pending != nil {
		e.pending.credited(p)
	}
	err := e.sa.Handle(now, p, &s.out)
	s.carryOut(now, e)
	return err
}

// do gives an SA a command.
func (s *Shard) do(now mono.Time, e *entry, c sa.Command) {
	s.begin(e)
	e.sa.Do(now, c, &s.out)
	s.carryOut(now, e)
}

// tell gives the SA of that SPI a command, if it is still there.
func (s *Shard) tell(now mono.Time, spi uint64, c sa.Command) {
	if e := s.table.bySPI[spi]; e != nil {
		s.do(now, e, c)
	}
}

// PanicError is a panic that a message has caused.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// contain ends one message. A panic in it costs the SA that it was for, and
// nothing else. It is deferred by everything that the loop calls for a message.
func (s *Shard) contain(now mono.Time) {
	e := s.current
	s.current = nil
	r := recover()
	if r == nil {
		return
	}
	s.count[cPanics]++
	if e == nil {
		return
	}
	defer func() {
		if recover() != nil { // an edge that panics in the removal, too
			s.count[cPanics]++
		}
	}()
	s.giveUp(now, e, &PanicError{r, debug.Stack()})
}

// read fills b from the random source, which never fails.
func (s *Shard) read(b []byte) {
	if _, err := io.ReadFull(s.conf.Rand, b); err != nil {
		panic("shard: the random source failed: " + err.Error())
	}
}

// failedAuth tells how long somebody who has failed is to wait for his answer.
func (s *Shard) failedAuth(now mono.Time, from netip.Addr, claimed policy.ID) time.Duration {
	wait := s.group.gate.failed(now, from, claimed)
	if wait > 0 {
		s.count[cAuthsDelayed]++
	}
	return wait
}
