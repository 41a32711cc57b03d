//go:build vm

package inside

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/loader/ethtool"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
	"github.com/ikepulse/ikepulse/test/vm"
)

// The guest's wires, by number.
const (
	vmxnet3 = iota
	virtio
)

const usualMTU = 1500

// Both ends' addresses, wherever they are.
var (
	ours  = netip.MustParseAddrPort("198.51.100.1:4500")
	peers = netip.MustParseAddrPort("198.51.100.7:61201")
)

var ourPrefix = netip.PrefixFrom(ours.Addr(), 24)

// wire is a gateway and a peer, and what is between them.
type wire struct {
	*testing.T
	gateway, peer *lab.Namespace
	config        string // of the gateway
}

// newWire has nothing between them yet.
func newWire(t *testing.T) *wire {
	t.Helper()
	require.Have(t, "root", "netns", "bpf", "tun")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &wire{T: t, config: filepath.Join(t.TempDir(), "ikepulse.yaml")}
	var err error
	if w.gateway, err = l.Namespace("gateway"); err == nil {
		w.peer, err = l.Namespace("peer")
	}
	w.must(err)
	w.configure("answer_interval: 1s", "u0")
	return w
}

func (w *wire) must(errs ...error) {
	w.Helper()
	if err := errors.Join(errs...); err != nil {
		w.Fatal(err)
	}
}

// configure writes the gateway's configuration.
func (w *wire) configure(xdp, ifname string) {
	w.Helper()
	text := fmt.Sprintf("listen: {addresses: [%v], interfaces: [%s]}\nxdp: {capacity: 64, %s}\n", ours.Addr(), ifname, xdp)
	w.must(os.WriteFile(w.config, []byte(text), 0o600))
}

// cards puts the cards of a wire of the guest between them: u0 at the
// gateway's end, p0 at the peer's. With the namespaces they go back.
func (w *wire) cards(number int) {
	w.Helper()
	for end, ns := range []*lab.Namespace{w.gateway, w.peer} {
		name, mac := []string{"u0", "p0"}[end], vm.WireMAC(number, end)
		w.must(ns.Do(func() error {
			here, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer here.Close()
			if err := moveCard(mac, int(here.Fd())); err != nil {
				return err
			}
			card, err := cardOf(mac)
			if err != nil {
				return err
			}
			// Whatever a test before this has left.
			return errors.Join(netlink.LinkSetDown(card), netlink.LinkSetMTU(card, usualMTU), netlink.LinkSetName(card, name))
		}))
		w.up(ns, name)
		if number == vmxnet3 {
			w.offload(ns, name, ethtool.StripsTags, true)
			w.offload(ns, name, "tx-vlan-hw-insert", true)
		}
	}
}

// moveCard fetches a card from where the guest has its cards, on a thread of
// its own. It may be on its way back there.
func moveCard(mac net.HardwareAddr, to int) error {
	done := make(chan error)
	go func() { // ends with the move, and its thread with it
		runtime.LockOSThread()
		done <- func() error {
			cards, err := os.Open(cardsNetns)
			if err != nil {
				return err
			}
			defer cards.Close()
			if err := unix.Setns(int(cards.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			card, err := cardOf(mac)
			for limit := time.Now().Add(soon); err != nil && time.Now().Before(limit); card, err = cardOf(mac) {
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				return err
			}
			return netlink.LinkSetNsFd(card, to)
		}()
	}()
	return <-done
}

func cardOf(mac net.HardwareAddr) (netlink.Link, error) {
	links, err := netlink.LinkList()
	for _, l := range links {
		if bytes.Equal(l.Attrs().HardwareAddr, mac) && l.Type() == "device" {
			return l, nil
		}
	}
	return nil, errors.Join(err, errors.New("no card "+mac.String()))
}

// veth puts a pair of interfaces between them.
func (w *wire) veth(here, there string) {
	w.Helper()
	w.must(lab.Connect(lab.End{Namespace: w.gateway, Name: here}, lab.End{Namespace: w.peer, Name: there, Receiver: true}))
}

func (w *wire) up(ns *lab.Namespace, name string) {
	w.Helper()
	w.must(ns.Sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"), w.change(ns, name, netlink.LinkSetUp))
}

func (w *wire) change(ns *lab.Namespace, name string, change func(netlink.Link) error) error {
	return ns.Do(func() error {
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return change(dev)
	})
}

// vlan makes number 7 on an interface of each, with the addresses.
func (w *wire) vlan(here, there string) {
	w.Helper()
	w.vlanOn(w.gateway, here)
	w.vlanOn(w.peer, there)
	w.address(here+".7", there+".7")
}

func (w *wire) vlanOn(ns *lab.Namespace, name string) {
	w.Helper()
	w.must(w.change(ns, name, func(parent netlink.Link) error {
		return netlink.LinkAdd(&netlink.Vlan{
			LinkAttrs: netlink.LinkAttrs{Name: name + ".7", ParentIndex: parent.Attrs().Index}, VlanId: 7,
			VlanProtocol: netlink.VLAN_PROTOCOL_8021Q,
		})
	}))
	w.up(ns, name+".7")
}

func (w *wire) address(here, there string) {
	w.Helper()
	w.must(w.gateway.Address(here, ourPrefix), w.peer.Address(there, netip.PrefixFrom(peers.Addr(), 24)))
}

// offload switches one of an interface.
func (w *wire) offload(ns *lab.Namespace, name, feature string, on bool) {
	w.Helper()
	w.must(ns.Do(func() error {
		conn, err := ethtool.Open()
		if err != nil {
			return err
		}
		return conn.Switch(name, []string{feature}, on)
	}))
}

// strips tells whether the gateway's interface takes tags off.
func (w *wire) strips(name string) (on bool) {
	w.Helper()
	w.must(w.gateway.Do(func() error {
		conn, err := ethtool.Open()
		if err != nil {
			return err
		}
		all, err := conn.Features(name)
		on = all[ethtool.StripsTags]
		return err
	}))
	return on
}

// want runs the product at the gateway and looks at what it says.
func (w *wire) want(code int, says []string, args ...string) string {
	w.Helper()
	var out lab.Transcript
	p, err := w.gateway.Start(lab.Command{Path: product, Args: args, Output: &out})
	w.must(err)
	err = p.Wait()
	if got := exitCode(err); got != code {
		w.Errorf("%q: exit code %d, want %d: %s", args, got, code, &out)
	}
	for _, s := range says {
		if !strings.Contains(out.String(), s) {
			w.Errorf("%q: no %q: %s", args, s, &out)
		}
	}
	return out.String()
}

// await asks for the status until it says so.
func (w *wire) await(code int, says string) {
	w.Helper()
	var out lab.Transcript
	for limit := time.Now().Add(soon); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		out = lab.Transcript{}
		p, err := w.gateway.Start(lab.Command{Path: product, Args: []string{"status"}, Output: &out})
		w.must(err)
		if got := exitCode(p.Wait()); got == code && strings.Contains(out.String(), says) {
			return
		}
	}
	w.Fatalf("no %q: %s", says, &out)
}

// known makes the peer one behind a NAT, with a tunnel.
func (w *wire) known() {
	w.Helper()
	w.must(w.gateway.Do(func() error {
		i, err := loader.Open("")
		if err != nil {
			return err
		}
		return errors.Join(i.Maps().Track(1<<22|5, ours, peers, true), i.Close())
	}))
}

// answered tells whether a keepalive that the peer sends by an interface is
// answered to it by the same. An answer by another, or without the tag, does
// not count.
func (w *wire) answered(by string) bool {
	w.Helper()
	answers := false
	w.must(w.peer.Do(func() error {
		c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(peers), net.UDPAddrFromAddrPort(ours))
		if err != nil {
			return err
		}
		defer c.Close()
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var errBind error
		if err := raw.Control(func(fd uintptr) { errBind = unix.BindToDevice(int(fd), by) }); err != nil || errBind != nil {
			return errors.Join(err, errBind)
		}
		answers = exchange(c)
		return nil
	}))
	return answers
}

// exchange sends one now and then, for longer than the answers' interval.
func exchange(c *net.UDPConn) bool {
	for range 12 {
		_, _ = c.Write([]byte{0xff}) // nobody may listen yet
		buffer := make([]byte, 16)
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := c.Read(buffer); err == nil && n == 1 && buffer[0] == 0xff {
			return true
		}
	}
	return false
}
