package loader

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"testing"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
)

// Beside another daemon nothing is ever answered, whatever was loaded before
// or is asked for.
func TestFollowNeverAnswers(t *testing.T) {
	privileged(t)
	if _, err := Ensure(Options{Follow: true, Keepalive: "answer"}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("asked to answer: %v", err)
	}
	own := ensure(t, small()) // which answers
	if err := own.Close(); err != nil {
		t.Fatal(err)
	}
	i := ensure(t, Options{Capacity: 100, Follow: true})
	if meta := i.Maps().Meta; meta.Keepalive != "absorb" || !meta.Follow || variable(t, i.Dir(), bpf.VarForeign) != 1 ||
		variable(t, i.Dir(), bpf.VarKeepaliveMode) != bpf.KeepaliveAbsorb {
		t.Errorf("%+v", meta)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	i, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer remove(t, i)
	if meta := i.Maps().Meta; !meta.Follow {
		t.Errorf("opened again: %+v", meta)
	}
}

// SPIs without a slot of ours: program and views agree on the way to them.
func TestFollowedFrames(t *testing.T) {
	privileged(t)
	i := ensure(t, Options{Capacity: 100, Follow: true})
	defer remove(t, i)
	set := i.Maps()
	local, peer := tuple[0], tuple[1]
	elsewhere := netip.AddrPortFrom(peer.Addr(), peer.Port()+1)
	if err := set.Locals.Set([]netip.Addr{local.Addr()}); err != nil {
		t.Fatal(err)
	}
	followed, err := set.Follow(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const foreign = 0xc0ffee01 // its slot field is beyond the maps
	sa := maps.FollowedSA{Local: local.Addr(), SPI: foreign, Protocol: 50}
	run := runner(t, i)
	packet := frame(local, peer, esp(foreign)...)

	run("before it is tracked", packet, bpf.ReasonESPUDPUnknown)
	slot, err := followed.Track(sa, local, peer)
	if err != nil {
		t.Fatal(err)
	}
	from := set.Clock.Now()
	run("ESP", packet, bpf.ReasonESPUDPKnown)
	if seen, auth := set.EvidenceAt(slot, foreign); seen < from || seen > set.Clock.Now() || auth != 0 {
		t.Errorf("seen at %d, authenticated at %d, sent after %d", seen, auth, from)
	}
	run("ESP of the same SPI to another address", frame(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), 4500), peer, esp(foreign)...), bpf.ReasonNotLocal)
	run("ESP from elsewhere", frame(local, elsewhere, esp(foreign)...), bpf.ReasonESPUDPMoved)
	for range 3 {
		run("a keepalive", frame(local, peer, 0xff), bpf.ReasonKeepaliveAbsorbed)
	}
	run("a stranger's", frame(local, elsewhere, 0xff), bpf.ReasonStrangerDropped)
	if err := followed.Move(sa, local, elsewhere); err != nil {
		t.Fatal(err)
	}
	run("ESP from where it moved", frame(local, elsewhere, esp(foreign)...), bpf.ReasonESPUDPKnown)
	run("a keepalive from where it moved", frame(local, elsewhere, 0xff), bpf.ReasonKeepaliveAbsorbed)
	run("a keepalive from where it was", frame(local, peer, 0xff), bpf.ReasonStrangerDropped)
	if err := followed.Untrack(sa); err != nil {
		t.Fatal(err)
	}
	run("after it is untracked", frame(local, elsewhere, esp(foreign)...), bpf.ReasonESPUDPUnknown)
	run("a keepalive after it is untracked", frame(local, elsewhere, 0xff), bpf.ReasonStrangerDropped)
}
