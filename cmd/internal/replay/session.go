package replay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/loader"
)

// session is the program with maps of its own, attached to nothing.
type session struct {
	objects
	nattPort uint16
	locals   map[netip.Addr]bool
	slots    map[SA]uint32  // of what is registered
	counters []bpf.Counters // per CPU, after the last frame
}

type objects struct {
	bpf.Maps
	XDP *ebpf.Program `ebpf:"ikepulse_xdp"`
}

// newSession loads the program, with maps that have room for what is
// registered, and no more.
func newSession(all *found, o Options) (*session, error) {
	s := &session{nattPort: o.nattPort(), locals: all.locals, slots: map[SA]uint32{}}
	if err := s.load(len(all.sas), len(all.locals)); err != nil {
		return nil, fmt.Errorf("loading the program: %w", refused(err))
	}
	if err := errors.Join(s.readCounters(), s.register(all)); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// load treats every SA as another daemon's: its SPI may be any.
func (s *session) load(sas, locals int) error {
	spec, err := bpf.Load()
	if err != nil {
		return err
	}
	for name, value := range map[string]any{
		bpf.VarForeign:            uint32(1),
		bpf.VarAccountEveryPacket: uint32(1),
		bpf.VarStrangerBudget:     uint32(0),
		bpf.VarNATTPort:           s.nattPort,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return err
		}
	}
	for name, entries := range map[string]int{
		bpf.MapHot: sas, bpf.MapSAs: sas, bpf.MapFollow: sas, bpf.MapLocals: locals,
	} {
		spec.Maps[name].MaxEntries = uint32(max(entries, 1))
	}
	return spec.LoadAndAssign(&s.objects, nil)
}

// refused leaves out which of our names the kernel was about, unless it is the
// verifier that speaks.
func refused(err error) error {
	var verifier *ebpf.VerifierError
	var errno unix.Errno
	if !errors.As(err, &verifier) && errors.As(err, &errno) {
		err = errno
	}
	return loader.Explain(err)
}

func (s *session) close() {
	_ = s.Maps.Close()
	_ = s.XDP.Close()
}

func (s *session) register(all *found) error {
	for address := range all.locals {
		if err := s.IkepulseLocals.Put(bpf.LocalKey{Address: address.As16()}, uint32(0)); err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
	}
	for sa := range all.sas {
		if err := s.addSA(sa); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) addSA(sa SA) error {
	slot := uint32(len(s.slots))
	local := sa.Dst.As16()
	err := errors.Join(
		s.IkepulseSas.Put(slot, bpf.SAEntry{Spi: sa.SPI, Local: local}),
		s.IkepulseHot.Put(slot, bpf.HotEntry{Spi: sa.SPI}),
		s.IkepulseFollow.Put(bpf.FollowKey{Local: local, Spi: sa.SPI, Protocol: sa.protocol()}, slot),
	)
	if err != nil {
		return fmt.Errorf("SPI %s: %w", sa, err)
	}
	s.slots[sa] = slot
	return nil
}

// send runs the program. Its reason is the counter that has moved.
func (s *session) send(frame []byte) (bpf.Verdict, bpf.Reason, error) {
	verdict, err := s.XDP.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		return 0, 0, err
	}
	before := s.counters
	if err := s.readCounters(); err != nil {
		return 0, 0, err
	}
	for cpu := range before {
		if before[cpu] == s.counters[cpu] {
			continue
		}
		for reason := range bpf.ReasonCount {
			if before[cpu].Of(reason) != s.counters[cpu].Of(reason) {
				return bpf.Verdict(verdict), reason, nil
			}
		}
	}
	return 0, 0, errors.New("the program counted nothing")
}

// sendTo is send for a frame of which so much was captured as is in to. A
// sequence number that is not would be zeros: the last one stays.
func (s *session) sendTo(to target, frame []byte) (bpf.Verdict, bpf.Reason, error) {
	slot, known := s.slots[to.sa]
	if to.seq || !known {
		return s.send(frame)
	}
	var before, after bpf.SAEntry
	if err := s.IkepulseSas.Lookup(slot, &before); err != nil {
		return 0, 0, err
	}
	verdict, reason, err := s.send(frame)
	if err == nil {
		err = s.IkepulseSas.Lookup(slot, &after)
	}
	if err == nil {
		after.LastSeq = before.LastSeq
		err = s.IkepulseSas.Put(slot, after)
	}
	return verdict, reason, err
}

func (s *session) readCounters() error {
	s.counters = nil
	return s.IkepulseStats.Lookup(uint32(0), &s.counters)
}

// counted returns what sas has of the SAs that had packets or were asked for.
func (s *session) counted(asked []SA) (esp, ah map[string]SPI, err error) {
	esp, ah = map[string]SPI{}, map[string]SPI{}
	for sa, slot := range s.slots {
		var entry bpf.SAEntry
		if err := s.IkepulseSas.Lookup(slot, &entry); err != nil {
			return esp, ah, fmt.Errorf("SPI %s: %w", sa, err)
		}
		if entry.Packets == 0 && !slices.Contains(asked, sa) {
			continue
		}
		of := esp
		if sa.AH {
			of = ah
		}
		of[sa.key()] = SPI{Packets: entry.Packets, LastSeq: entry.LastSeq}
	}
	return esp, ah, nil
}
