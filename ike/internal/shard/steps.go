package shard

import (
	"errors"
	"fmt"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// maxFailures bounds how often in a row an SA may answer the failure of a step
// with steps that fail again.
const maxFailures = 8

// carryOut does what an SA has asked for, in s.out, and settles it. The steps
// are done strictly in their order; the first that fails ends them, and what
// the SA answers to that is done instead.
func (s *Shard) carryOut(now mono.Time, e *entry) {
	for range maxFailures {
		failed, err := s.steps(now, e)
		if err == nil {
			s.settle(now, e)
			return
		}
		if err != errNoPlace && err != ErrBusy { // which no edge has said
			s.count[cFailedStep]++
		}
		if errors.Is(err, ErrBusy) && e.pending != nil {
			// The peer will ask again, and then there may be room for it.
			s.count[cShedFull]++
			s.drop(now, e)
			return
		}
		s.out.Reset()
		e.sa.Do(now, sa.Failed{Step: failed, Err: err}, &s.out)
	}
	s.giveUp(now, e, errors.New("every step fails"))
}

// giveUp ends an SA that cannot be asked to end.
func (s *Shard) giveUp(now mono.Time, e *entry, err error) {
	s.report(now, e, sa.Event{Kind: sa.Closed, Reason: sa.LocalFailure, Path: e.sa.Path(), Err: err})
	s.drop(now, e)
}

// steps does them until one fails, and gives that one.
func (s *Shard) steps(now mono.Time, e *entry) (sa.Step, error) {
	for _, st := range s.out.Steps {
		if err := s.step(now, e, st); err != nil {
			return st, err
		}
	}
	return nil, nil
}

func (s *Shard) step(now mono.Time, e *entry, st sa.Step) error {
	switch st := st.(type) {
	case sa.Persist:
		return s.persist(e, st.Record)
	case sa.Track:
		return s.track(e, st)
	case sa.InstallInbound:
		return s.installInbound(e, st.Child)
	case sa.InstallOutbound:
		return s.installOutbound(e, st.Child)
	case sa.Agree:
		return s.agree(now, e, st)
	case sa.Admit:
		return s.admit(e, st)
	default:
		s.sureStep(now, e, st)
		return nil
	}
}

// sureStep does the steps that cannot fail.
func (s *Shard) sureStep(now mono.Time, e *entry, st sa.Step) {
	switch st := st.(type) {
	case sa.Retrack:
		s.edgeFailed(s.retrack(e, st))
	case sa.MoveOutbound:
		s.edgeFailed(s.plane.MoveOutbound(st.InSPI, st.OutSPI, st.Path))
	case sa.RemoveOutbound:
		s.removeOutbound(e, st.InSPI)
	case sa.RemoveInbound:
		s.removeInbound(e, st.InSPI)
	case sa.Untrack:
		s.untrack(now, e, st.SPI)
	case sa.Forget:
		s.forget(e)
	case sa.Send:
		s.send(e, st.Packet)
	case sa.Keepalive:
		s.keepalive(st.Path)
	case sa.Leave:
		s.leave(e)
	case sa.ReturnLeases:
		s.returnLeases(e)
	case sa.Report:
		s.report(now, e, st.Event)
	default:
		panic(fmt.Sprintf("shard: unknown step %T", st))
	}
}

// persist stores the SA's record. The encoding holds keys, so it is wiped.
func (s *Shard) persist(e *entry, r *sa.Record) error {
	if s.edges.Store == nil {
		return nil
	}
	s.record = r.AppendBinary(s.record[:0])
	defer clear(s.record)
	if err := s.edges.Store.Put(e.sa.SPI(), s.record, r.Room()); err != nil {
		return fmt.Errorf("storing the record: %w", err)
	}
	e.held.stored = true
	return nil
}

func (s *Shard) track(e *entry, st sa.Track) error {
	if err := s.edges.Tracker.Track(st.SPI, st.Path.Local, st.Path.Remote, st.PeerNATted); err != nil {
		return fmt.Errorf("tracking the SPI: %w", err)
	}
	c := e.held.child(st.SPI)
	c.tracked, c.path = true, st.Path
	return nil
}

// retrack moves an SPI from where the tracker has it, which is not where the SA
// was if an earlier move was refused.
func (s *Shard) retrack(e *entry, st sa.Retrack) error {
	c := e.held.child(st.SPI)
	if err := s.edges.Tracker.Move(st.SPI, c.path.Local, c.path.Remote, st.New.Local, st.New.Remote, st.PeerNATted); err != nil {
		return err
	}
	c.path = st.New
	return nil
}

func (s *Shard) installInbound(e *entry, c *sa.ChildSA) error {
	if err := s.plane.InstallInbound(c); err != nil {
		return fmt.Errorf("installing the inbound SA: %w", err)
	}
	h := e.held.child(c.InSPI)
	h.outSPI, h.inbound = c.OutSPI, true
	return nil
}

func (s *Shard) installOutbound(e *entry, c *sa.ChildSA) error {
	if err := s.plane.InstallOutbound(c); err != nil {
		return fmt.Errorf("installing the outbound SA: %w", err)
	}
	h := e.held.child(c.InSPI)
	h.outSPI, h.outbound = c.OutSPI, true
	return nil
}

// send puts a message on the wire. As long as the peer may be anybody it gets
// at most as many bytes as have come from there: else whoever forges a source
// address could let us shout at it.
func (s *Shard) send(e *entry, p wire.Packet) {
	if pd := e.pending; pd != nil && e.sa.Role() == sa.Responder && !pd.proven && !authenticated(e.sa.State()) {
		if p.Remote != pd.addr || len(p.Data) > pd.credit {
			s.count[cWithheld]++
			return
		}
		pd.credit -= len(p.Data)
	}
	if !s.transmit(p) {
		e.sa.Unsent(p.Data)
	}
}

func (s *Shard) transmit(p wire.Packet) (left bool) {
	if err := s.edges.Sender.Send(p); err != nil {
		s.count[cSendErrors]++
		return false
	}
	s.count[cSent]++
	return true
}

// keepalive sends the one byte that keeps a NAT mapping open. RFC 3948 §2.3
func (s *Shard) keepalive(path sa.Path) {
	s.transmit(wire.Packet{Local: path.Local, Remote: path.Remote, NATT: true, Data: []byte{0xff}})
}
