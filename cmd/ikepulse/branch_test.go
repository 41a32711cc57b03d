package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/lab/charon"
	"github.com/ikepulse/ikepulse/test/require"
)

// branchAddr is the outer address of the branch, behind the router that is a NAT
// for others, and a second one.
var branchAddr = netip.MustParseAddr("203.0.113.7")

// branch is a strongSwan that has the covered address behind it, and no barrier
// of its own: without a tunnel it sends in the clear.
type branch struct {
	*forged
	ns     *lab.Namespace
	far    *lab.Namespace // the router next to it
	dir    string
	daemon *charon.Daemon
}

// branchConfig is the gateway's: it calls the branch, again and again.
const branchConfig = `listen: {addresses: [198.51.100.1]}
xdp: {capacity: 64}
connections:
  branch:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: branch.example.org, addresses: [203.0.113.7]}
    dpd: {delay: 1s, retransmit: {timeout: 300ms, base: 1.5, tries: 3}}
    children: {lan: {local_ts: [10.0.0.0/24], remote_ts: [10.99.0.0/24], start_action: start}}
secrets:
  - {id: branch.example.org, psk_file: anna.psk}
`

// hubConf is the branch's view of the gateway.
const hubConf = `connections {
	hub {
		version = 2
		local_addrs = 203.0.113.7
		remote_addrs = 198.51.100.1
		proposals = aes256gcm16-prfsha256-x25519
		local {
			auth = psk
			id = branch.example.org
		}
		remote {
			auth = psk
			id = vpn.example.org
		}
		children {
			lan {
				local_ts = 10.99.0.0/24
				remote_ts = 10.0.0.0/24
				esp_proposals = aes256gcm16
			}
		}
	}
}
secrets {
	ike-1 {
		id-1 = vpn.example.org
		id-2 = branch.example.org
		secret = "` + psk + `"
	}
}
`

// newBranch makes one at the end of a path of that MTU, on which nothing is
// translated.
func newBranch(t *testing.T, mtu int) *branch {
	t.Helper()
	require.Have(t, "strongswan")
	b := &branch{forged: newForged(t), dir: t.TempDir()}
	if err := errors.Join(b.Masq.Remove(), b.lay(mtu)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && b.daemon != nil {
			t.Logf("strongSwan: %s", b.daemon.Log())
		}
	})
	return b
}

// lay links the branch to the NAT.
func (b *branch) lay(mtu int) (err error) {
	if b.far, err = b.lab.Namespace("far router"); err != nil {
		return err
	}
	if b.ns, err = b.lab.Namespace("branch"); err != nil {
		return err
	}
	everywhere, site := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.99.0.0/24")
	nat, far, router := netip.MustParsePrefix("198.19.0.1/24"), netip.MustParsePrefix("198.19.0.2/24"), netip.MustParsePrefix("203.0.113.254/24")
	err = lab.Connect(lab.End{Namespace: b.NAT, Name: "n1", Addresses: []netip.Prefix{nat}, MTU: mtu},
		lab.End{Namespace: b.far, Name: "r0", Addresses: []netip.Prefix{far}, MTU: mtu})
	if err == nil {
		err = lab.Connect(lab.End{Namespace: b.far, Name: "r1", Addresses: []netip.Prefix{router}},
			lab.End{Namespace: b.ns, Name: "b0", Addresses: []netip.Prefix{netip.PrefixFrom(branchAddr, 24)}})
	}
	if err != nil {
		return err
	}
	return errors.Join(
		b.far.Sysctl("net/ipv4/ip_forward", "1"),
		b.NAT.Route(router, far.Addr()), b.NAT.Route(site, far.Addr()),
		b.NAT.Route(netip.PrefixFrom(inner, 24), lab.GatewayAddr),
		b.far.Route(everywhere, nat.Addr()), b.far.Route(site, branchAddr),
		b.ns.Route(everywhere, router.Addr()),
		b.ns.Address("lo", netip.PrefixFrom(covered, 32)))
}

// open starts the branch's strongSwan.
func (b *branch) open() {
	b.t.Helper()
	var err error
	if b.daemon, err = charon.Start(b.ns, b.dir, ""); err == nil {
		err = b.daemon.Load(hubConf)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// up waits until the tunnel is, and nothing is wrong.
func (b *branch) up() {
	b.t.Helper()
	b.await("the tunnel is up", func() error {
		if st, code := b.status(b.Gateway); code != 0 || st.Daemon == nil || st.IKE.Up != 1 {
			return fmt.Errorf("%+v", st.Problems)
		}
		return nil
	})
}

// talkPort is where both ends of a talk are.
const talkPort = 9

// talk is what the gateway's inner address and the covered one at the branch say
// to each other all the time, in numbered packets: by the tunnel, or in the clear
// where nothing hinders them.
type talk struct {
	b     *branch
	clear *lab.Capture
	ends  [2]*lab.Chat
}

// talk begins one.
func (b *branch) talk() *talk {
	b.t.Helper()
	k := &talk{b: b}
	var err error
	// Of both directions: what the branch sends in the clear is no fault of ours.
	k.clear, err = b.Gateway.Capture(lab.GatewayLink, func(f lab.Frame) bool { return strings.Contains(string(f.Data), secretText) })
	if err == nil {
		ours, theirs := netip.AddrPortFrom(inner, talkPort), netip.AddrPortFrom(covered, talkPort)
		if k.ends[0], err = b.Gateway.Chat(ours, theirs, secretText); err == nil {
			k.ends[1], err = b.ns.Chat(theirs, ours, secretText)
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return k
}

// moves waits until both ends hear something new.
func (k *talk) moves(when string) {
	k.b.t.Helper()
	var before [2]int
	for i, e := range k.ends {
		before[i] = len(e.Heard())
	}
	k.b.await("traffic moves in both directions "+when, func() error {
		for i, e := range k.ends {
			if n := len(e.Heard()) - before[i]; n < 10 {
				return fmt.Errorf("end %d has heard %d packets", i, n)
			}
		}
		return nil
	})
}

// end wants that nothing has left in the clear, and that of what the branch sent
// so nothing was let in. It returns how much the branch did send so.
func (k *talk) end(when string) (tried int) {
	k.b.t.Helper()
	for _, e := range k.ends {
		e.End()
	}
	frames, err := k.clear.Stop()
	if err != nil {
		k.b.t.Error(err)
	}
	heard := k.ends[0].Heard()
	out, in := 0, 0
	for _, f := range frames {
		_, _, payload, _ := f.UDP()
		if f.Outgoing {
			out++
			continue
		}
		tried++
		if heard[lab.ChatNumber(payload)] {
			in++
		}
	}
	if out != 0 || in != 0 {
		k.b.t.Errorf("%s: %d packets left in the clear, %d came in", when, out, in)
	}
	return tried
}

// TestTunnelEnds: however a tunnel to a site ends, nothing of what goes on in it
// leaves in the clear nor comes in so, and it goes on when the tunnel is back.
func TestTunnelEnds(t *testing.T) {
	b := newBranch(t, 0)
	b.open()
	gw := b.run(b.Gateway, "--config", b.write("gateway.yaml", branchConfig))
	down := func() {
		t.Helper()
		b.await("the tunnel is down", func() error {
			if st, _ := b.status(b.Gateway); st.Daemon == nil || st.IKE.Up != 0 {
				return errors.New("it is up")
			}
			return nil
		})
	}
	b.up()
	for _, end := range []struct {
		name string
		do   func()
		back func() // what it takes beside the gateway's own calls
	}{
		{"death, found by dead peer detection", func() {
			if err := b.daemon.Process().Kill(); err == nil {
				t.Error("a killed daemon ended well")
			}
		}, b.open},
		{"delete by the peer", func() {
			if err := b.daemon.Terminate("hub"); err != nil {
				t.Error(err)
			}
		}, func() {}},
		{"delete by us", func() { b.want(b.Gateway, 0, nil, "terminate", "branch") },
			func() { b.want(b.Gateway, 0, nil, "initiate", "branch") }},
	} {
		k := b.talk()
		b.hidden(end.name, func() {
			k.moves("before " + end.name)
			end.do()
			down()
			time.Sleep(500 * time.Millisecond)
			end.back()
			b.up()
			k.moves("after " + end.name)
		})
		if tried := k.end(end.name); tried == 0 {
			t.Errorf("%s: the branch has sent nothing in the clear, so nothing is proved", end.name)
		}
	}
	b.stop(gw)
	b.want(b.Gateway, 0, nil, "detach", "--all")
}
