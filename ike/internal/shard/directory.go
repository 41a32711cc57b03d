package shard

import (
	"context"
	"errors"
	"net/netip"
	"runtime"

	"github.com/ikepulse/ikepulse/ike/internal/directory"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// registrar owns the directory of identities and leases. It is one goroutine, is asked
// by message, and answers by messages to the shards of the SAs.
type registrar struct {
	mail  mailbox
	wake  chan struct{}
	clock func() mono.Time
	tell  func(directory.Order)

	directory *directory.Directory
	panics    uint64
}

// registrarShare is how many questions are answered before others may use the
// processor.
const registrarShare = 16

// run works until ctx ends.
func (r *registrar) run(ctx context.Context) {
	for {
		for r.mail.waiting() {
			r.mail.some(registrarShare, r.do)
			runtime.Gosched()
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
	}
}

// do runs one message; a panic costs that message.
func (r *registrar) do(m message) {
	defer func() {
		if recover() != nil {
			r.panics++
		}
	}()
	m(r.clock())
}

// post has the directory asked a question that must not be lost: there are no more of
// them than SAs.
func (r *registrar) post(question func(d *directory.Directory, now mono.Time) []directory.Order) {
	r.mail.post(func(now mono.Time) {
		for _, o := range question(r.directory, now) {
			r.tell(o)
		}
	})
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// note is post for what has no answer.
func (r *registrar) note(fact func(d *directory.Directory)) {
	r.post(func(d *directory.Directory, _ mono.Time) []directory.Order {
		fact(d)
		return nil
	})
}

// order tells an SA, in whichever shard, what the directory has decided.
func (g *Group) order(o directory.Order) {
	s := g.shards[o.SPI>>shardShift]
	s.post(func(now mono.Time) { s.tell(now, o.SPI, commandOf(o)) })
}

func commandOf(o directory.Order) sa.Command {
	switch o.Do {
	case directory.Replace:
		return sa.Replace{}
	case directory.Displace:
		return sa.Displace{}
	case directory.Uncross:
		return sa.Terminate{}
	case directory.Probe:
		return sa.Probe{}
	default:
		return sa.Admitted(o.Admission)
	}
}

// errNoPlace refuses a peer who has proved who he is.
var errNoPlace = errors.New("the gateway has as many tunnels as it can hold")

// admit asks for an SA's admission, which is answered by a command. A tunnel's
// place is taken here and not before: whoever has not proved who he is takes
// none from those who will.
func (s *Shard) admit(e *entry, st sa.Admit) error {
	if !e.placed && !s.group.reserve() {
		s.count[cTableFull]++
		return errNoPlace
	}
	e.placed = true
	e.held.admitted = true
	r := directory.Request{SPI: e.sa.SPI(), Conn: e.sa.Conn(), Peer: e.sa.PeerID(), From: e.sa.Path().Remote,
		Ours: e.sa.Role() == sa.Initiator, Began: e.sa.Created(), InitialContact: st.InitialContact, Want: st.Want}
	s.group.registrar.post(func(d *directory.Directory, now mono.Time) []directory.Order { return d.Admit(now, r) })
	return nil
}

// leave ends an SA's admission.
func (s *Shard) leave(e *entry) {
	if !e.held.admitted {
		return
	}
	e.held.admitted = false
	spi := e.sa.SPI()
	s.group.registrar.post(func(d *directory.Directory, _ mono.Time) []directory.Order { return d.Leave(spi) })
}

// returnLeases gives an SA's addresses back before its end.
func (s *Shard) returnLeases(e *entry) {
	spi := e.sa.SPI()
	s.group.registrar.note(func(d *directory.Directory) { d.ReturnLeases(spi) })
}

// moved tells the directory where an SA's peer is now.
func (s *Shard) moved(e *entry, to netip.AddrPort) {
	if spi := e.sa.SPI(); e.held.admitted {
		s.group.registrar.note(func(d *directory.Directory) { d.Moved(spi, to) })
	}
}

// carrying tells the directory that an SA's Child SA is up, or has gone.
func (s *Shard) carrying(e *entry, up bool) {
	if spi := e.sa.SPI(); e.held.admitted {
		s.group.registrar.post(func(d *directory.Directory, _ mono.Time) []directory.Order { return d.Carries(spi, up) })
	}
}

// directoryStatus is the directory's part of a Status.
type directoryStatus struct {
	leases map[string]int
	panics uint64
}

func (g *Group) directoryStatus(ctx context.Context) (st directoryStatus, err error) {
	r := g.registrar
	reply := make(chan directoryStatus, 1)
	r.note(func(d *directory.Directory) { reply <- directoryStatus{d.Leases(), r.panics} })
	select {
	case st = <-reply:
		return st, nil
	case <-ctx.Done():
		return st, ctx.Err()
	case <-g.done:
		return st, ErrStopped
	}
}
