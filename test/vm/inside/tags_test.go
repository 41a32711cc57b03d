//go:build vm

package inside

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/loader/ethtool"
)

// tagCounter counts IPv4 frames without a tag [0] and frames with one [1].
type tagCounter struct {
	prog   *ebpf.Program
	counts *ebpf.Map
}

func newTagCounter(t *testing.T) *tagCounter {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	wire := func(etherType uint16) int32 { // as it is loaded from a frame
		return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, etherType)))
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "tags", Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 14),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R5, asm.R2, 12, asm.Half),
		asm.LoadMapValue(asm.R1, counts.FD(), 8),
		asm.JEq.Imm(asm.R5, wire(unix.ETH_P_8021Q), "count"),
		asm.LoadMapValue(asm.R1, counts.FD(), 0),
		asm.JNE.Imm(asm.R5, wire(unix.ETH_P_IP), "pass"),
		asm.Mov.Imm(asm.R2, 1).WithSymbol("count"),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close(); counts.Close() })
	return &tagCounter{prog, counts}
}

func (c *tagCounter) read(t *testing.T) (n [2]uint64) {
	t.Helper()
	if err := c.counts.Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// seesTags sends through the VLAN and tells whether the program, in a mode on
// an interface of the gateway, sees the tags.
func (w *wire) seesTags(c *tagCounter, name string, mode link.XDPAttachFlags) bool {
	w.Helper()
	var l link.Link
	w.must(w.change(w.gateway, name, func(dev netlink.Link) (err error) {
		l, err = link.AttachXDP(link.XDPOptions{Program: c.prog, Interface: dev.Attrs().Index, Flags: mode})
		return err
	}))
	defer l.Close()
	var conn *net.UDPConn
	w.must(w.peer.Do(func() (err error) {
		conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(ours))
		return err
	}))
	defer conn.Close()
	before := c.read(w.T)
	for limit := time.Now().Add(soon); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		_, _ = conn.Write([]byte("anything")) // nobody listens
		now := c.read(w.T)
		plain, tagged := now[0]-before[0], now[1]-before[1]
		if plain > 0 && tagged > 0 {
			w.Fatalf("%s: %d plain, %d tagged", name, plain, tagged)
		}
		if plain+tagged >= 3 {
			return tagged > 0
		}
	}
	w.Fatalf("%s: nothing comes", name)
	return false
}

// TestWhoSeesTags is what loader/tags.go stands on: who decides whether XDP sees
// a VLAN's tag.
func TestWhoSeesTags(t *testing.T) {
	for name, c := range map[string]struct {
		lay   func(*wire)
		on    string // where the program is
		fixed bool   // its offloads cannot be switched
		sees  func(mode link.XDPAttachFlags, rx, tx bool) bool
	}{
		"vmxnet3": {func(w *wire) { w.cards(vmxnet3) }, "u0", false, func(_ link.XDPAttachFlags, rx, _ bool) bool { return !rx }},
		"virtio":  {func(w *wire) { w.cards(virtio) }, "u0", true, func(link.XDPAttachFlags, bool, bool) bool { return true }},
		"veth":    {func(w *wire) { w.veth("u0", "p0") }, "u0", false, func(_ link.XDPAttachFlags, _, tx bool) bool { return !tx }},
		"a bond of vmxnet3": {func(w *wire) {
			w.cards(vmxnet3)
			w.bond("b0", "u0")
		}, "b0", false, func(mode link.XDPAttachFlags, rx, _ bool) bool { return mode == link.XDPDriverMode && !rx }},
	} {
		t.Run(name, func(t *testing.T) {
			w, counter := newWire(t), newTagCounter(t)
			c.lay(w)
			w.vlan(c.on, "p0")
			for _, mode := range []link.XDPAttachFlags{link.XDPDriverMode, link.XDPGenericMode} {
				if mode == link.XDPDriverMode && !w.native(counter, c.on) {
					t.Log("this kernel's driver has no native mode")
					continue
				}
				for _, rx := range []bool{true, false} {
					for _, tx := range []bool{true, false} {
						if !c.fixed {
							w.offload(w.gateway, "u0", ethtool.StripsTags, rx)
							w.offload(w.peer, "p0", "tx-vlan-hw-insert", tx)
						}
						if got, want := w.seesTags(counter, c.on, mode), c.sees(mode, rx, tx); got != want {
							t.Errorf("mode %d, rx-vlan-hw-parse %v, the sender's tx-vlan-hw-insert %v: sees tags %v, want %v", mode, rx, tx, got, want)
						}
					}
				}
			}
		})
	}
}

// native tells whether a driver takes the program.
func (w *wire) native(c *tagCounter, name string) (yes bool) {
	w.Helper()
	w.must(w.change(w.gateway, name, func(dev netlink.Link) error {
		l, err := link.AttachXDP(link.XDPOptions{Program: c.prog, Interface: dev.Attrs().Index, Flags: link.XDPDriverMode})
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("native: %w", err)
		}
		yes = true
		return l.Close()
	}))
	return yes
}
