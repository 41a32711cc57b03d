package replay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// capacity is how many SAs and how many addresses a capture may have.
const capacity = 1 << 16

// session is the program with maps of its own, attached to nothing.
type session struct {
	objects
	nattPort  uint16
	allSAs    bool
	allLocals bool

	asked    []SA          // what the options name
	slots    map[SA]uint32 // of what is registered
	locals   map[netip.Addr]bool
	counters []bpf.Counters // per CPU, after the last frame
}

type objects struct {
	bpf.Maps
	XDP *ebpf.Program `ebpf:"ikepulse_xdp"`
}

func newSession(o Options) (*session, error) {
	s := &session{
		nattPort: o.NATTPort, allSAs: o.AllSAs, allLocals: len(o.Locals) == 0, asked: o.SAs,
		slots: map[SA]uint32{}, locals: map[netip.Addr]bool{},
	}
	if s.nattPort == 0 {
		s.nattPort = 4500
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("loading the program: %w", err)
	}
	err := s.readCounters()
	for _, address := range o.Locals {
		err = errors.Join(err, s.addLocal(address))
	}
	for _, sa := range o.SAs {
		err = errors.Join(err, s.addSA(sa))
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// load treats every SA as another daemon's: its SPI may be any.
func (s *session) load() error {
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
	for _, name := range []string{bpf.MapHot, bpf.MapSAs, bpf.MapFollow, bpf.MapLocals} {
		spec.Maps[name].MaxEntries = capacity
	}
	return spec.LoadAndAssign(&s.objects, nil)
}

func (s *session) close() {
	_ = s.Maps.Close()
	_ = s.XDP.Close()
}

// expect registers what a frame is addressed to, as far as the options say.
func (s *session) expect(to target) error {
	var errs []error
	if s.allLocals && to.dst.IsValid() {
		errs = append(errs, s.addLocal(to.dst))
	}
	if s.allSAs && to.sa.Dst.IsValid() {
		errs = append(errs, s.addSA(to.sa))
	}
	return errors.Join(errs...)
}

func (s *session) addLocal(address netip.Addr) error {
	if s.locals[address] {
		return nil
	}
	if err := s.IkepulseLocals.Put(bpf.LocalKey{Address: address.As16()}, uint32(0)); err != nil {
		return fmt.Errorf("address %s, after %d others: %w", address, len(s.locals), err)
	}
	s.locals[address] = true
	return nil
}

func (s *session) addSA(sa SA) error {
	if _, ok := s.slots[sa]; ok || sa.SPI == 0 {
		return nil // RFC 4303 section 2.1: no SA has SPI 0
	}
	slot := uint32(len(s.slots))
	if slot >= capacity {
		return fmt.Errorf("more than %d SPIs", capacity)
	}
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

func (s *session) readCounters() error {
	s.counters = nil
	return s.IkepulseStats.Lookup(uint32(0), &s.counters)
}

// counted returns what sas has of the SAs that had packets or were asked for.
func (s *session) counted() (esp, ah map[string]SPI, err error) {
	esp, ah = map[string]SPI{}, map[string]SPI{}
	for sa, slot := range s.slots {
		var entry bpf.SAEntry
		if err := s.IkepulseSas.Lookup(slot, &entry); err != nil {
			return esp, ah, fmt.Errorf("SPI %s: %w", sa, err)
		}
		if entry.Packets == 0 && !slices.Contains(s.asked, sa) {
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
