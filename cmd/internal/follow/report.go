package follow

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/xfrm"
	"github.com/ikepulse/ikepulse/maps"
)

// report tells every inbound SA, and the sum.
func (s *states) report() error {
	out := s.outbound()
	for _, st := range s.inboundStates() {
		f := s.about(EventSA, st)
		f.OutSPI = out[pair{st.Reqid, st.Src}].spi()
		if err := s.tell(f); err != nil {
			return err
		}
	}
	return s.tell(Fact{Event: EventSummary, Summary: s.summary()})
}

// inboundStates are those that are in the maps, or should be, by peer.
func (s *states) inboundStates() []*state {
	var all []*state
	for _, st := range s.all {
		if st.tracked || st.refused != nil {
			all = append(all, st)
		}
	}
	slices.SortFunc(all, func(a, b *state) int {
		return cmp.Or(a.Peer().Compare(b.Peer()), cmp.Compare(a.SPI, b.SPI), cmp.Compare(a.Proto, b.Proto))
	})
	return all
}

// pair is what the two directions of a tunnel have in common.
type pair struct {
	reqid uint32
	peer  netip.Addr
}

// outbound are the newest outbound SAs.
func (s *states) outbound() map[pair]*state {
	newest := map[pair]*state{}
	for _, st := range s.all {
		if st.tracked || st.refused != nil {
			continue
		}
		at := pair{st.Reqid, st.Dst}
		if n := newest[at]; n == nil || n.Added.Before(st.Added) {
			newest[at] = st
		}
	}
	return newest
}

func (s *state) spi() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%08x", s.SPI)
}

// about describes an SA at present.
func (s *states) about(event string, st *state) Fact {
	now := s.set.Clock.Now()
	sa := &SA{
		InSPI: st.spi(), Protocol: protocol(st.Proto), Local: st.Local(), Remote: st.Peer(), Reqid: st.Reqid,
		Alarm: st.alarm(), Why: st.why(),
	}
	if !st.Added.IsZero() {
		up := max(time.Since(st.Added), 0).Milliseconds()
		sa.UpMS = &up
	}
	if st.tracked {
		seen, _ := s.set.EvidenceAt(st.slot, st.SPI)
		sa.IdleMS, sa.ProofMS = age(now, seen), age(now, st.proof.auth)
		s.keepalives(sa, now)
	}
	switch {
	case !st.proves():
		sa.Proof, sa.ProofMS = "hint", nil
	case sa.ProofMS != nil:
		sa.Proof = sa.Protocol
	}
	return Fact{Event: event, SA: sa}
}

func (s *states) keepalives(sa *SA, now int64) {
	peer, known, err := s.set.Peers.Get(maps.Tuple{Local: sa.Local, Peer: sa.Remote})
	if err != nil || !known {
		return
	}
	sa.Keepalives = peer.Keepalives
	sa.KeepaliveMS = age(now, s.set.Clock.BootAt(peer.KeepaliveTick, now))
}

func (s *state) alarm() string {
	switch {
	case s.refused != nil:
		return AlarmUntracked
	case s.proof.why != "":
		return AlarmUnauthenticated
	case s.proof.unseenAll():
		return AlarmUnseen
	case s.heard.IsValid():
		return AlarmMoved
	}
	return ""
}

func (s *state) why() string {
	if s.proof.why == "" && s.proof.unseenAll() {
		return whyUnseen
	}
	return s.proof.why
}

func (s *states) summary() *Summary {
	sum := &Summary{Resyncs: s.resyncs}
	for _, st := range s.inboundStates() {
		sum.SAs++
		if st.refused != nil {
			sum.Untracked++
		}
		if st.alarm() != "" {
			sum.Alarms++
		}
	}
	c, err := s.set.Stats.Read()
	if err != nil {
		return sum // the counters are for people; the SAs go on
	}
	sum.Absorbed, sum.Passed = c.KeepaliveAbsorbed, c.KeepalivePassed
	sum.Strangers = c.StrangerDropped + c.StrangerPassed
	sum.ESPKnown = c.EspKnown + c.EspMoved + c.EspUdpKnown + c.EspUdpMoved + c.FragEspUdpKnown + c.FragEspUdpMoved
	sum.ESPUnknown = c.EspUnknown + c.EspUdpUnknown + c.FragEspUdpUnknown
	sum.AHKnown, sum.AHUnknown = c.AhKnown+c.AhMoved, c.AhUnknown
	return sum
}

func protocol(number uint8) string {
	if number == xfrm.AH {
		return "ah"
	}
	return "esp"
}

// age is how long ago something happened, nil for never.
func age(now, at int64) *int64 {
	if at == 0 {
		return nil
	}
	ms := max(time.Duration(now-at), 0).Milliseconds()
	return &ms
}
