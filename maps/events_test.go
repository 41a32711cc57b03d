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
	spec, err := SpecFor(s.Meta)
	if err != nil {
		t.Fatal(err)
	}
	near := s.handles.Near.MaxEntries()
	spec.Maps[bpf.MapNear].MaxEntries = near
	if err := spec.Variables[bpf.VarSlotMask].Set(near*uint32(bpf.NearWays) - 1); err != nil {
		t.Fatal(err)
	}
	var program struct {
		XDP *ebpf.Program `ebpf:"ikepulse_xdp"`
	}
	if err := spec.LoadAndAssign(&program, &ebpf.CollectionOptions{MapReplacements: s.handles.Maps()}); err != nil {
		t.Fatal(err)
	}
	defer program.XDP.Close()
	frame := make([]byte, 12, 64)
	frame = append(frame, 0x08, 0x00, 0x45, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(28+len(payload)))
	frame = append(frame, 0, 0, 0, 0, 64, 17, 0, 0)
	frame = append(frame, tuple.Peer.Addr().AsSlice()...)
	frame = append(frame, tuple.Local.Addr().AsSlice()...)
	frame = binary.BigEndian.AppendUint16(frame, tuple.Peer.Port())
	frame = binary.BigEndian.AppendUint16(frame, tuple.Local.Port())
	frame = binary.BigEndian.AppendUint16(frame, uint16(8+len(payload)))
	frame = append(append(frame, 0, 0), payload...)
	if _, err := program.XDP.Run(&ebpf.RunOptions{Data: frame}); err != nil {
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
