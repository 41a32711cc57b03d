package ethtool_test

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/loader/ethtool"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// What is switched is what the kernel then says, and nothing else changes.
func TestSwitch(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	defer l.Close()
	n, err := l.Namespace("offloads")
	if err == nil {
		err = n.Do(func() error { return switched(t) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

func switched(t *testing.T) error {
	pair := netlink.NewVeth(netlink.LinkAttrs{Name: "v0"})
	pair.PeerName = "v1"
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	conn, err := ethtool.Open()
	if err != nil {
		return err
	}
	features := func() map[string]bool {
		on, err := conn.Features("v0")
		if err != nil {
			t.Fatal(err)
		}
		return on
	}
	both := []string{ethtool.StripsTags, ethtool.StripsServiceTags}
	before := features()
	for _, name := range both {
		if !before[name] {
			t.Fatalf("%s is off from the start: %v", name, before)
		}
	}
	for _, on := range []bool{false, true} {
		if err := conn.Switch("v0", both, on); err != nil {
			return err
		}
		after := features()
		if after[both[0]] != on || after[both[1]] != on {
			t.Errorf("switched %v: %v", on, after)
		}
		if want := len(before) - 2; !on && len(after) != want {
			t.Errorf("%d features are on, want %d", len(after), want)
		}
	}
	if driver := ethtool.Driver("v0"); driver != "veth" {
		t.Errorf("driver %q", driver)
	}
	if err := conn.Switch("v0", []string{"no-such-feature"}, true); err == nil {
		t.Error("an unknown feature was switched")
	}
	if _, err := conn.Features("v9"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no interface: %v", err)
	}
	return nil
}
