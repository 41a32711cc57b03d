package barrier

import (
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestManyPolicies: those of 20,000 sites go in, and are missed when somebody
// takes them away; those of others stay.
func TestManyPolicies(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	defer l.Close()
	ns, err := l.Namespace("gateway")
	if err != nil {
		t.Fatal(err)
	}
	p := sites().Plan(Host{})
	foreign := &netlink.XfrmPolicy{Src: ipNet("10.0.0.0/24"), Dst: ipNet("0.0.0.0/0"), Dir: netlink.XFRM_DIR_IN, Action: netlink.XFRM_POLICY_ALLOW}
	err = ns.Do(func() error {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "ikepulse"}, Mode: netlink.TUNTAP_MODE_TUN}
		if err := netlink.LinkAdd(tun); err != nil {
			return err
		}
		if err := netlink.XfrmPolicyAdd(foreign); err != nil {
			return err
		}
		f, err := XFRM(Options{TUN: "ikepulse", Mark: 7})
		if err != nil {
			return err
		}
		check := func(want string) {
			t.Helper()
			if what, err := f.Missing(); err != nil || what != want {
				t.Errorf("missing %q, %v; want %q", what, err, want)
			}
		}
		set := func() {
			t.Helper()
			if err := f.Set(p); err != nil {
				t.Error(err)
			}
			check("")
		}
		set()
		if n := len(f.(*xfrm).wanted); n < 40_000 {
			t.Errorf("%d policies", n)
		}
		present, err := f.(*xfrm).present()
		if err != nil {
			return err
		}
		one := policy{netlink.XFRM_DIR_FWD, f.(*xfrm).from(netip.MustParsePrefix("10.0.2.0/24"))}
		if err := f.(*xfrm).carryOut([]change{{one, present[one], true}}); err != nil {
			return err
		}
		check("1 of the XFRM policies")
		set()
		if err := netlink.XfrmPolicyFlush(); err != nil {
			return err
		}
		check(fmt.Sprintf("%d of the XFRM policies", len(f.(*xfrm).wanted)))
		set()
		if err := netlink.XfrmPolicyAdd(foreign); err != nil {
			t.Errorf("another's policy for the same addresses: %v", err)
		}
		// Whoever sets the interface back stops what the tunnels bring.
		for _, path := range f.(*xfrm).exemptions() {
			if err := writeZero(path); err != nil {
				return err
			}
			check(path + ", without which XFRM policies drop what the tunnels bring")
			set()
		}
		if err := f.Remove(); err != nil {
			return err
		}
		left, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
		if len(left) != 1 || left[0].Action != netlink.XFRM_POLICY_ALLOW {
			t.Errorf("left: %v", left)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPoliciesWithoutTUN: policies that somebody flushes come back also while
// there is no TUN to exempt from them.
func TestPoliciesWithoutTUN(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	defer l.Close()
	ns, err := l.Namespace("gateway")
	if err != nil {
		t.Fatal(err)
	}
	p := (&Config{Tunnels: []Tunnel{everywhere}}).Plan(Host{})
	err = ns.Do(func() error {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "ikepulse"}, Mode: netlink.TUNTAP_MODE_TUN}
		if err := netlink.LinkAdd(tun); err != nil {
			return err
		}
		f, err := XFRM(Options{TUN: "ikepulse", Mark: 7})
		if err != nil {
			return err
		}
		if err := errors.Join(f.Set(p), netlink.LinkDel(tun), netlink.XfrmPolicyFlush()); err != nil {
			return err
		}
		if err := f.Set(p); err == nil {
			t.Error("nobody says that the TUN is not exempt")
		}
		present, err := f.(*xfrm).present()
		if wanted := len(f.(*xfrm).wanted); len(present) != wanted {
			t.Errorf("%d policies of %d", len(present), wanted)
		}
		return errors.Join(err, f.Remove())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestChanges: at no moment between two plans an address passes that both cover.
func TestChanges(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	f := &xfrm{}
	plan := func() *Plan {
		p := &Plan{verdicts: map[netip.Prefix]Verdict{}}
		for range 1 + rnd.Intn(8) {
			bits := rnd.Intn(9) + 24
			x, _ := netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.Intn(256))}).Prefix(bits)
			p.set(x, Covered+Verdict(rnd.Intn(2)))
		}
		return p
	}
	passes := func(all map[policy]standing, a netip.Addr) bool {
		best, found := sentence{priority: 1<<32 - 1, action: netlink.XFRM_POLICY_ALLOW}, false
		for p, s := range all {
			from, _ := netip.AddrFromSlice(p.sel.Saddr[:4])
			of := netip.PrefixFrom(from, int(p.sel.PrefixlenS))
			if p.dir == netlink.XFRM_DIR_FWD && of.Contains(a) && s.priority < best.priority {
				best, found = s.sentence, true
			}
		}
		return !found || best.action == netlink.XFRM_POLICY_ALLOW
	}
	covered := 0
	for range 300 {
		before, after := plan(), plan()
		wanted := f.policies(after)
		present := map[policy]standing{}
		for p, s := range f.policies(before) {
			present[p] = standing{sentence: s}
		}
		now := maps.Clone(present)
		for _, c := range changes(present, wanted) {
			if c.remove {
				delete(now, c.policy)
			} else {
				now[c.policy] = c.standing
			}
			for i := range 256 {
				a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				if before.At(single(a)) == Covered && after.At(single(a)) == Covered {
					covered++
					if passes(now, a) {
						t.Fatalf("%v passes between %v and %v", a, before.verdicts, after.verdicts)
					}
				}
			}
		}
		if !maps.EqualFunc(now, wanted, func(a standing, b sentence) bool { return a.sentence == b }) {
			t.Fatalf("ends with %v, want %v", now, wanted)
		}
	}
	if covered == 0 {
		t.Error("nothing was covered by both")
	}
}

func ipNet(text string) *net.IPNet {
	p := netip.MustParsePrefix(text)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func writeZero(path string) error { return os.WriteFile(path, []byte("0"), 0) }
