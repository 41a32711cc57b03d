package follow

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/ike/xfrm"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestMain runs the tests in namespaces of their own, with a bpffs of their own.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && !lab.Isolated() {
		code, err := lab.Reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, "no namespaces for the tests:", err)
			os.Exit(m.Run()) // those that need them say so
		}
		os.Exit(code)
	}
	if lab.Isolated() {
		if err := lab.Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		isolated = true
	}
	os.Exit(m.Run())
}

var isolated bool

func privileged(t *testing.T) {
	t.Helper()
	require.Have(t, "root", "netns", "bpf")
	if !isolated {
		t.Fatal("root, but no namespaces to test in")
	}
}

// We and a natted peer.
var (
	us       = netip.MustParseAddr("198.51.100.1")
	natted   = netip.MustParseAddrPort("203.0.113.9:61201")
	rebound  = netip.MustParseAddrPort("203.0.113.9:24884")
	peerAddr = natted.Addr()
)

// stage is states over real maps and the real program, with kernel events made
// by hand.
type stage struct {
	*testing.T
	*states
	program *ebpf.Program
	facts   []string
	raw     []Fact
	kernel  map[xfrm.Key]xfrm.Counters // what it would count
}

func newStage(t *testing.T, capacity int) *stage {
	t.Helper()
	privileged(t)
	i, err := loader.Ensure(loader.Options{Capacity: capacity, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(i.Remove(), i.Close()); err != nil {
			t.Error(err)
		}
	})
	g := &stage{T: t, kernel: map[xfrm.Key]xfrm.Counters{}}
	g.follows(i.Maps())
	if g.program, err = ebpf.LoadPinnedProgram(i.Dir()+"/"+bpf.ProgXDP, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.program.Close() })
	g.ours(us)
	g.takes(xfrm.Batch{Synced: true})
	g.want("following 0")
	return g
}

// follows begins to, as a process does.
func (g *stage) follows(set *maps.Set) {
	g.Helper()
	followed, err := set.Follow(rand.Reader)
	if err != nil {
		g.Fatal(err)
	}
	g.states = newStates(set, followed, g.told)
}

// told keeps a fact as a line.
func (g *stage) told(f Fact) error {
	line := f.Event
	if f.SA != nil {
		line += " " + f.InSPI + " " + f.Remote.String()
		if f.Alarm != "" {
			line += " !" + f.Alarm
		}
		if f.Why != "" {
			line += ": " + f.Why
		}
	}
	if f.Summary != nil {
		line += fmt.Sprintf(" %d", f.SAs)
	}
	if f.Heard != "" {
		line += " at " + f.Heard
	}
	if f.Lost {
		line += " lost"
	}
	g.facts, g.raw = append(g.facts, line), append(g.raw, f)
	return nil
}

// want compares what has been told since the last want.
func (g *stage) want(lines ...string) {
	g.Helper()
	if !slices.Equal(g.facts, lines) {
		g.Errorf("told %q, want %q", g.facts, lines)
	}
	g.facts, g.raw = nil, nil
}

func (g *stage) ours(addresses ...netip.Addr) {
	g.Helper()
	ours := map[netip.Addr]bool{}
	for _, a := range addresses {
		ours[a] = true
	}
	if err := errors.Join(g.set.Locals.Set(addresses), g.setLocals(ours)); err != nil {
		g.Fatal(err)
	}
}

func (g *stage) takes(b xfrm.Batch) {
	g.Helper()
	if err := g.take(b); err != nil {
		g.Fatal(err)
	}
}

func (g *stage) changes(kind xfrm.ChangeKind, sas ...xfrm.SA) {
	g.Helper()
	var b xfrm.Batch
	for _, sa := range sas {
		b.Changes = append(b.Changes, xfrm.Change{Kind: kind, SA: sa})
	}
	g.takes(b)
}

// looks is one look, in which the kernel has counted what it says.
func (g *stage) looks() {
	g.Helper()
	err := g.look(func(due []*state, _ int) (map[xfrm.Key]xfrm.Counters, error) { return g.kernel, nil })
	if err != nil {
		g.Fatal(err)
	}
}

// arrives runs a UDP datagram through XDP; it must leave for this reason.
func (g *stage) arrives(from netip.AddrPort, want bpf.Reason, payload ...byte) {
	g.Helper()
	before, err := g.set.Stats.Read()
	if err != nil {
		g.Fatal(err)
	}
	if _, err := g.program.Run(&ebpf.RunOptions{Data: frame(from, payload)}); err != nil {
		g.Fatal(err)
	}
	after, err := g.set.Stats.Read()
	if err != nil {
		g.Fatal(err)
	}
	if after.Of(want) != before.Of(want)+1 {
		g.Errorf("from %v: not %v", from, want)
	}
}

func frame(from netip.AddrPort, payload []byte) []byte {
	b := make([]byte, 14, 80)
	b[5], b[11] = 1, 2 // unicast addresses
	b[12], b[13] = 0x08, 0x00
	b = append(b, 0x45, 0, 0, byte(28+len(payload)), 0, 0, 0, 0, 64, 17, 0, 0)
	src, dst := from.Addr().As4(), us.As4()
	b = append(append(b, src[:]...), dst[:]...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, 4500)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// esp is the head of an ESP packet, and enough behind it.
func esp(spi uint32) []byte {
	return append(binary.BigEndian.AppendUint32(nil, spi), make([]byte, 28)...)
}

// The states of most tests.
func inbound(spi uint32) xfrm.SA {
	return xfrm.SA{Key: xfrm.Key{Dst: us, SPI: spi, Proto: xfrm.ESP}, Src: peerAddr, Reqid: 3,
		Encap: true, SrcPort: natted.Port(), DstPort: 4500, ReplayWindow: 32}
}

func outbound(spi uint32) xfrm.SA {
	return xfrm.SA{Key: xfrm.Key{Dst: peerAddr, SPI: spi, Proto: xfrm.ESP}, Src: us, Reqid: 3,
		Encap: true, SrcPort: 4500, DstPort: natted.Port()}
}

func with(sa xfrm.SA, change func(*xfrm.SA)) xfrm.SA { change(&sa); return sa }
