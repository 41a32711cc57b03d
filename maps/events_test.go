package maps

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// receive lets the real program see a datagram that came to the set's gateway.
func receive(t *testing.T, s *Set, tuple Tuple, payload []byte) {
	t.Helper()
	xdp := loadXDP(t, s)
	defer xdp.Close()
	run(t, xdp, tuple, payload)
}

// loadXDP loads the real program over the set's maps.
func loadXDP(t *testing.T, s *Set) *ebpf.Program {
	t.Helper()
	spec, err := SpecFor(s.Meta)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range s.handles.Maps() {
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	near := s.handles.Near.MaxEntries()
	if err := spec.Variables[bpf.VarSlotMask].Set(near*uint32(bpf.NearWays) - 1); err != nil {
		t.Fatal(err)
	}
	var program struct {
		XDP *ebpf.Program `ebpf:"ikepulse_xdp"`
	}
	if err := spec.LoadAndAssign(&program, &ebpf.CollectionOptions{MapReplacements: s.handles.Maps()}); err != nil {
		t.Fatal(err)
	}
	return program.XDP
}

// run gives the program a datagram from the tuple's peer.
func run(t *testing.T, xdp *ebpf.Program, tuple Tuple, payload []byte) {
	t.Helper()
	local, peer, length := tuple.Local.Addr().Unmap(), tuple.Peer.Addr().Unmap(), uint16(8+len(payload))
	frame := make([]byte, 12, 80)
	if local.Is4() {
		frame = append(frame, 0x08, 0x00, 0x45, 0)
		frame = binary.BigEndian.AppendUint16(frame, 20+length)
		frame = append(frame, 0, 0, 0, 0, 64, 17, 0, 0)
	} else {
		frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0)
		frame = binary.BigEndian.AppendUint16(frame, length)
		frame = append(frame, 17, 64)
	}
	frame = append(append(frame, peer.AsSlice()...), local.AsSlice()...)
	frame = binary.BigEndian.AppendUint16(frame, tuple.Peer.Port())
	frame = binary.BigEndian.AppendUint16(frame, tuple.Local.Port())
	frame = binary.BigEndian.AppendUint16(frame, length)
	frame = append(append(frame, 0, 0), payload...)
	if _, err := xdp.Run(&ebpf.RunOptions{Data: frame}); err != nil {
		t.Fatal(err)
	}
}

// What XDP tells of is read as it was, also what came before there was a
// reader; closing ends the wait.
func TestEvents(t *testing.T) {
	s := loadSet(t, nil)
	if err := s.Locals.Add(behind.Local.Addr()); err != nil {
		t.Fatal(err)
	}
	if err := s.Track(spiA, behind.Local, behind.Peer, true); err != nil {
		t.Fatal(err)
	}
	moved := Tuple{behind.Local, netip.AddrPortFrom(behind.Peer.Addr(), behind.Peer.Port()+1)}
	before := s.Clock.Now()
	receive(t, s, moved, binary.BigEndian.AppendUint64(nil, uint64(spiA)<<32|1))

	events, err := s.Events()
	if err != nil {
		t.Fatal(err)
	}
	got, err := events.Read()
	if err != nil {
		t.Fatal(err)
	}
	if at := got.At; at < before || at > s.Clock.Now() {
		t.Errorf("at %d, want between %d and now", at, before)
	}
	if want := (Event{SPI: spiA, At: got.At, From: moved, Before: behind}); got != want {
		t.Errorf("drift: %+v, want %+v", got, want)
	}
	receive(t, s, moved, []byte{0xff})
	if got, err = events.Read(); err != nil {
		t.Fatal(err)
	}
	if want := (Event{At: got.At, From: moved, Before: Tuple{noPort, noPort}}); got != want {
		t.Errorf("stranger: %+v, want %+v", got, want)
	}

	ended := make(chan error)
	go func() { // ends with Close
		_, err := events.Read()
		ended <- err
	}()
	if err := events.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// noPort is what an event has that says nothing of a place.
var noPort = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
