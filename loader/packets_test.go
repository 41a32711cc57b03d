package loader

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
)

// frame is an Ethernet frame with an IPv4 UDP datagram from peer to local.
func frame(local, peer netip.AddrPort, payload ...byte) []byte {
	b := make([]byte, 14, 64)
	b[5], b[11] = 1, 2 // unicast addresses
	b[12], b[13] = 0x08, 0x00
	b = append(b, 0x45, 0, 0, byte(28+len(payload)), 0, 0, 0, 0, 64, 17, 0, 0)
	src, dst := peer.Addr().As4(), local.Addr().As4()
	b = append(append(b, src[:]...), dst[:]...)
	b = binary.BigEndian.AppendUint16(b, peer.Port())
	b = binary.BigEndian.AppendUint16(b, local.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// esp is the head of an ESP packet, and enough behind it.
func esp(spi uint32) []byte {
	return append(binary.BigEndian.AppendUint32(nil, spi), make([]byte, 28)...)
}

// runner runs frames through an instance's program; each must leave for the
// wanted reason and no other.
func runner(t *testing.T, i *Instance) func(what string, in []byte, want bpf.Reason) {
	return func(what string, in []byte, want bpf.Reason) {
		t.Helper()
		before, err := i.set.Stats.Read()
		if err != nil {
			t.Fatal(err)
		}
		verdict, err := i.program.Run(&ebpf.RunOptions{Data: in, DataOut: make([]byte, 256)})
		if err != nil {
			t.Fatal(err)
		}
		after, err := i.set.Stats.Read()
		if err != nil {
			t.Fatal(err)
		}
		if after.Of(want) != before.Of(want)+1 || after.Packets() != before.Packets()+1 || bpf.Verdict(verdict) != want.Verdict() {
			t.Errorf("%s: verdict %v, want %v for %v", what, bpf.Verdict(verdict), want.Verdict(), want)
			for n, reason := range after.Reasons() {
				if reason != before.Reasons()[n] {
					t.Errorf("  it was %s", reason.Name)
				}
			}
		}
	}
}

// TestProgramAndViewsAgree runs frames through the loaded program: what it
// looks up and writes must be what the views wrote and read, byte orders,
// hashes and ticks included.
func TestProgramAndViewsAgree(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer remove(t, i)
	set := i.Maps()
	local, peer := tuple[0], tuple[1]
	elsewhere := netip.AddrPortFrom(peer.Addr(), peer.Port()+1)
	run := runner(t, i)
	keepalive := frame(local, peer, 0xff)

	run("a keepalive to nobody", keepalive, bpf.ReasonNotLocal)
	if err := set.Locals.Set([]netip.Addr{local.Addr()}); err != nil {
		t.Fatal(err)
	}
	run("a stranger's keepalive", keepalive, bpf.ReasonStrangerDropped)
	run("an SPI before it is tracked", frame(local, peer, esp(spi)...), bpf.ReasonESPUDPUnknown)

	if err := set.Track(spi, local, peer, true); err != nil {
		t.Fatal(err)
	}
	from := set.Clock.Now()
	run("ESP", frame(local, peer, esp(spi)...), bpf.ReasonESPUDPKnown)
	if seen, auth := set.Evidence(spi); seen < from || seen > set.Clock.Now() || auth != 0 {
		t.Errorf("seen at %d, authenticated at %d, sent after %d", seen, auth, from)
	}
	run("another tag in the slot", frame(local, peer, esp(spi^1<<maps.SlotBits)...), bpf.ReasonESPUDPUnknown)
	run("ESP from elsewhere", frame(local, elsewhere, esp(spi)...), bpf.ReasonESPUDPMoved)
	if err := set.Move(spi, local, peer, local, elsewhere, true); err != nil {
		t.Fatal(err)
	}
	run("ESP from where it moved", frame(local, elsewhere, esp(spi)...), bpf.ReasonESPUDPKnown)
	run("a keepalive from where it was", keepalive, bpf.ReasonStrangerDropped)
	run("a keepalive", frame(local, elsewhere, 0xff), bpf.ReasonKeepaliveAnswered)
	run("the next keepalive", frame(local, elsewhere, 0xff), bpf.ReasonKeepaliveLimited)
	got, _, err := set.Peers.Get(maps.Tuple{Local: local, Peer: elsewhere})
	if err != nil || got.Keepalives != 2 || got.Answers != 1 || set.Clock.BootAt(got.KeepaliveTick, set.Clock.Now()) < from {
		t.Errorf("%+v, %v", got, err)
	}

	if err := set.Untrack(spi, local, elsewhere); err != nil {
		t.Fatal(err)
	}
	run("ESP after it is untracked", frame(local, elsewhere, esp(spi)...), bpf.ReasonESPUDPUnknown)
	run("a keepalive after it is untracked", frame(local, elsewhere, 0xff), bpf.ReasonStrangerDropped)
}

// When an interface cannot be moved to a new program, all stay with the old
// one, and so does the pin.
func TestSwapFails(t *testing.T) {
	privileged(t)
	veth(t, "vswa", 0)
	veth(t, "vswb", 0)
	i := ensure(t, small())
	defer remove(t, i)
	before := attach(t, i, "vswa").ProgramID
	attach(t, i, "vswb")

	f, err := look(i.Dir(), i.Maps().Meta.NetnsCookie)
	if err != nil {
		t.Fatal(err)
	}
	defer closeLinks(f.links)
	defer f.Close()
	if err := f.links[1].link.Close(); err != nil {
		t.Fatal(err)
	}
	wanted := f.meta
	wanted.Keepalive = "pass"
	if err := f.swapProgram(wanted); err == nil {
		t.Error("an interface that could not be moved was no error")
	}
	for _, name := range []string{"vswa", "vswb"} {
		if on := programOn(t, name); on != before {
			t.Errorf("program %d is on %s, want %d", on, name, before)
		}
	}
	if pins := pinsBelow(t, i.Dir()); len(pins) != len(allPins(t))+2 {
		t.Errorf("pins: %q", pins)
	}
	if pinned := uint32(kernelObjects(t, i.Dir()).programs[0]); pinned != before {
		t.Errorf("program %d is pinned, want %d", pinned, before)
	}
	again, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Close()); err != nil || again.Maps().Meta.Keepalive != "answer" {
		t.Errorf("meta says %s, %v", again.Maps().Meta.Keepalive, err)
	}
}
