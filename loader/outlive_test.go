package loader

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/lab"
)

// natted is the other end of a link, behind which a peer sends keepalives.
type natted struct {
	sent, received atomic.Uint64
	stop           func()
}

// keepalives sends one a millisecond, over a real link, until stop: a hundred
// times the fastest peer, so that a gap of a few of them shows.
func keepalives(t *testing.T, l *lab.Lab, ifname string, from, to netip.AddrPort) *natted {
	t.Helper()
	dev := veth(t, ifname, 0)
	other, err := l.Namespace("peer")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := netlink.LinkByName("p" + ifname[1:])
	if err == nil {
		err = errors.Join(moveTo(other, peer), netlink.LinkSetUp(dev),
			netlink.AddrAdd(dev, wide(to.Addr())))
	}
	if err != nil {
		t.Fatal(err)
	}
	// Before the program is there somebody must take them, or the sender is told
	// that nobody listens.
	sink, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	n := &natted{}
	var c *net.UDPConn
	err = other.Do(func() error {
		peer, err := netlink.LinkByName("p" + ifname[1:])
		if err != nil {
			return err
		}
		prog, _ := somebodys(t) // a receiver: a bare veth would not take what XDP sends
		if err := errors.Join(netlink.LinkSetXdpFd(peer, prog.FD()), netlink.LinkSetUp(peer),
			netlink.AddrAdd(peer, wide(from.Addr()))); err != nil {
			return err
		}
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n.exchange(t, c)
	return n
}

// wide is an address beside that of the other end, of use at once.
func wide(a netip.Addr) *netlink.Addr {
	mask := net.CIDRMask(a.BitLen()-8, a.BitLen())
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: mask}, Flags: unix.IFA_F_NODAD}
}

func (n *natted) exchange(t *testing.T, c *net.UDPConn) {
	var both sync.WaitGroup
	done := make(chan struct{})
	both.Go(func() { // ends with done
		beat := time.NewTicker(time.Millisecond)
		defer beat.Stop()
		for {
			select {
			case <-done:
				return
			case <-beat.C:
			}
			if _, err := c.Write([]byte{0xff}); err != nil {
				t.Error(err)
				return
			}
			n.sent.Add(1)
		}
	})
	both.Go(func() { // ends when c is closed
		buffer := make([]byte, 64)
		for {
			got, err := c.Read(buffer)
			if err != nil {
				return
			}
			if got == 1 && buffer[0] == 0xff {
				n.received.Add(1)
			}
		}
	})
	n.stop = sync.OnceFunc(func() {
		close(done)
		time.Sleep(100 * time.Millisecond) // what is on its way
		_ = c.Close()
		both.Wait()
	})
	t.Cleanup(n.stop)
}

// anotherVersion makes a program with the same effect but another tag the
// pinned and attached one, as another version of ours would.
func anotherVersion(t *testing.T, i *Instance) {
	t.Helper()
	spec, err := maps.Spec(i.Maps().Meta.Capacity)
	if err == nil {
		err = set(spec, i.Maps().Meta)
	}
	if err != nil {
		t.Fatal(err)
	}
	code := spec.Programs[bpf.ProgXDP].Instructions
	extra := asm.Mov.Imm(asm.R0, 0)
	extra.Metadata, code[0].Metadata = code[0].Metadata, asm.Metadata{}
	spec.Programs[bpf.ProgXDP].Instructions = append(asm.Instructions{extra}, code...)
	h, err := maps.LoadPinned(i.Dir(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var other struct {
		XDP *ebpf.Program `ebpf:"ikepulse_xdp"`
	}
	if err := spec.LoadAndAssign(&other, &ebpf.CollectionOptions{MapReplacements: h.Maps()}); err != nil {
		t.Fatal(err)
	}
	defer other.XDP.Close()
	makePresent(t, i, other.XDP)
}

func ensureAndWait() error {
	if _, err := Ensure(small()); err != nil {
		return err
	}
	fmt.Println("loaded")
	time.Sleep(time.Hour)
	return nil
}

// A peer who sends keepalives gets every answer that is due, and every one of
// them is counted, while the process that loaded the program is killed, others
// take over, and the program is exchanged for another version's and back.
func TestNoKeepaliveIsLost(t *testing.T) {
	privileged(t)
	o := small()
	o.AnswerInterval = time.Nanosecond // a tick
	i := ensure(t, o)
	defer remove(t, i)
	local, peer := netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("198.51.100.7:61201")
	if err := errors.Join(i.Maps().Locals.Add(local.Addr()), i.Maps().Track(spi, local, peer, true)); err != nil {
		t.Fatal(err)
	}
	l := lab.New()
	defer l.Close()
	sender := keepalives(t, l, "vlive", peer, local)
	before := attach(t, i, "vlive")
	at := func() maps.Peer {
		p, _, err := i.Maps().Peers.Get(maps.Tuple{Local: local, Peer: peer})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	// A look at what stood still meanwhile, but for what is on its way.
	var first maps.Peer
	sent := ^uint64(0)
	for limit := time.Now().Add(10 * time.Second); first.Answers == 0 || sent != sender.sent.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("no answer: %+v", first)
		}
		sent = sender.sent.Load()
		first = at()
	}
	counted := first.Keepalives - sent // what came before the program
	programs := map[uint32]bool{before.ProgramID: true}
	round := 0
	for ; round < 6 || at().Answers < 4; round++ {
		if round > 100 {
			t.Fatalf("no answers: %+v", at())
		}
		anotherVersion(t, i)
		programs[only(t, i).ProgramID] = true
		cmd, line := child(t, "take over") // and puts this version back
		if err := cmd.Process.Kill(); line != "loaded" || err != nil {
			t.Fatalf("the child says %q, %v", line, err)
		}
		_ = cmd.Wait()
		now := only(t, i)
		if programs[now.ProgramID] = true; now.LinkID != before.LinkID {
			t.Fatalf("link %d became %d: attached anew", before.LinkID, now.LinkID)
		}
		time.Sleep(200 * time.Millisecond)
	}
	if len(programs) != 1+2*round {
		t.Errorf("%d programs in turn, want %d", len(programs), 1+2*round)
	}
	sender.stop()
	end := at()
	if lost := int64(sender.sent.Load() - (end.Keepalives - counted)); lost < -2 || lost > 2 { // some may have been on their way
		t.Errorf("%d of %d keepalives are not counted", lost, sender.sent.Load())
	}
	step := i.Maps().Meta.AnswerInterval + 1 // more than so many ticks must have passed
	if due := first.Answers + uint64((end.AnswerTick-first.AnswerTick)/step); end.Answers != due || sender.received.Load() != due {
		t.Errorf("%d answers, %d came, %d were due: %+v, then %+v", end.Answers, sender.received.Load(), due, first, end)
	}
	stampless, _ := i.Maps().Evidence(spi)
	if stampless != 0 {
		t.Error("a keepalive has stamped an SPI")
	}
	counters, err := i.Maps().Stats.Read()
	if err != nil {
		t.Fatal(err)
	}
	if n := counters.Of(bpf.ReasonStrangerDropped); n != 0 {
		t.Errorf("%d keepalives were a stranger's", n)
	}
}

// unverifiable makes a program that the verifier does not let through: it reads
// where nothing was stored.
func unverifiable(spec *ebpf.CollectionSpec) {
	p := spec.Programs[bpf.ProgXDP]
	extra := asm.LoadMem(asm.R0, asm.R10, -8, asm.DWord)
	outside := asm.LoadMem(asm.R0, asm.R1, 4096, asm.DWord)
	extra.Metadata, p.Instructions[0].Metadata = p.Instructions[0].Metadata, asm.Metadata{}
	p.Instructions = append(asm.Instructions{extra, outside}, p.Instructions...)
}

// What the verifier refuses is said to be that, and leaves nothing behind.
func TestVerifierRefuses(t *testing.T) {
	privileged(t)
	o := small()
	o.alter = unverifiable
	for _, o.NoPin = range []bool{false, true} {
		_, err := Ensure(o)
		var verdict *ebpf.VerifierError
		if !errors.As(err, &verdict) || !strings.Contains(err.Error(), "this kernel's verifier refuses the program") {
			t.Errorf("err = %v", err)
		}
	}
	if pins := pinsBelow(t, base); len(pins) != 0 {
		t.Errorf("left: %q", pins)
	}
}

// An upgrade whose program is refused leaves the older one where it is, with
// its maps; one that also wants other settings is an error.
func TestUpgradeRefused(t *testing.T) {
	privileged(t)
	veth(t, "vref", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vref")
	track(t, i)
	anotherVersion(t, i)
	before := only(t, i)
	if i.Older() != nil {
		t.Errorf("what was just loaded is another version's: %v", i.Older())
	}
	o := small()
	o.alter = unverifiable
	next, err := Ensure(o)
	if err != nil {
		t.Fatal(err)
	}
	stampKept(t, next)
	if err := next.Older(); err == nil || !strings.Contains(err.Error(), "verifier refuses") {
		t.Errorf("Older = %v", err)
	}
	if now := only(t, next); now != before || programOn(t, "vref") != before.ProgramID {
		t.Errorf("%+v, was %+v", now, before)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if err := i.Detach("vref"); err != nil {
		t.Fatal(err)
	}
	o.Keepalive = "absorb"
	if _, err := Ensure(o); err == nil || !strings.Contains(err.Error(), "verifier refuses") {
		t.Errorf("with other settings: %v", err)
	}
}

// Maps that the machine has no memory for are said to be that, and leave
// nothing behind.
func TestNoMemory(t *testing.T) {
	privileged(t)
	o := small()
	o.alter = func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.MapSAs].MaxEntries = 1 << 31 } // 128 GiB
	for _, o.NoPin = range []bool{false, true} {
		_, err := Ensure(o)
		if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "no memory for maps of this capacity") {
			t.Errorf("err = %v", err)
		}
	}
	if pins := pinsBelow(t, base); len(pins) != 0 {
		t.Errorf("left: %q", pins)
	}
}

// Over IPv6, where a checksum there must be, a sender that leaves his to a NIC
// which has none gets answers that his own kernel takes.
func TestAnswersOverIPv6(t *testing.T) {
	privileged(t)
	o := small()
	o.AnswerInterval = time.Nanosecond
	i := ensure(t, o)
	defer remove(t, i)
	local, peer := netip.MustParseAddrPort("[2001:db8::1]:4500"), netip.MustParseAddrPort("[2001:db8::7]:61201")
	if err := errors.Join(i.Maps().Locals.Add(local.Addr()), i.Maps().Track(spi, local, peer, true)); err != nil {
		t.Fatal(err)
	}
	l := lab.New()
	defer l.Close()
	sender := keepalives(t, l, "vsix", peer, local)
	attach(t, i, "vsix")
	for limit := time.Now().Add(20 * time.Second); sender.received.Load() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			p, _, err := i.Maps().Peers.Get(maps.Tuple{Local: local, Peer: peer})
			t.Fatalf("%d of %d answers came (%v)", sender.received.Load(), p.Answers, err)
		}
	}
	sender.stop()
	p, _, err := i.Maps().Peers.Get(maps.Tuple{Local: local, Peer: peer})
	if err != nil || sender.received.Load() != p.Answers {
		t.Errorf("%d of %d answers came (%v)", sender.received.Load(), p.Answers, err)
	}
}
