package barrier

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// sites is a configuration of 20,000, with gaps between them, so that each is a
// range of its own.
func sites() *Config {
	c := &Config{Listen: addresses("198.51.100.1", "2001:db8::1")}
	for i := range 20_000 {
		c.Tunnels = append(c.Tunnels, Tunnel{Remote: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + i>>15), byte(i >> 7), byte(i << 1), 0}), 24)}})
	}
	return c
}

// TestManyNetworks: the sets of 20,000 sites go in, are found whole, and are
// missed when somebody takes some away, puts the table to sleep or deletes it.
func TestManyNetworks(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	defer l.Close()
	ns, err := l.Namespace("gateway")
	if err != nil {
		t.Fatal(err)
	}
	c := sites()
	c.Tunnels = append(c.Tunnels, Tunnel{Remote: prefixes("255.255.255.0/24", "ffff::/16")}) // nothing is behind these
	p := c.Plan(Host{})
	var f Filter
	err = ns.Do(func() (err error) {
		if f, err = NFTables(Options{Name: "ikepulse-test", TUN: "ikepulse", Mark: 1}, c.Listen); err != nil {
			return err
		}
		return f.Set(p)
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		if what, err := f.Missing(); err != nil || what != want {
			t.Errorf("missing %q, %v; want %q", what, err, want)
		}
	}
	check("")
	if got := len(p.Ranges(true)); got != 20_001 {
		t.Errorf("%d ranges", got)
	}
	var table *nftables.Table
	change := func(do func(*nftables.Conn)) {
		t.Helper()
		err := ns.Do(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			do(c)
			return c.Flush()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []struct {
		missing string
		do      func(*nftables.Conn)
	}{
		{"the nftables table inet ikepulse-test", func(c *nftables.Conn) { c.DelTable(table) }},
		{"elements of the nftables set inet ikepulse-test covered4", func(c *nftables.Conn) { c.FlushSet(&nftables.Set{Table: table, Name: "covered4"}) }},
		{"rules of the nftables chain inet ikepulse-test in", func(c *nftables.Conn) { c.FlushChain(&nftables.Chain{Table: table, Name: "in"}) }},
	} {
		table = f.(*nft).table(f.(*nft).second)
		change(a.do)
		check(a.missing)
		if err := f.Set(p); err != nil {
			t.Fatal(err)
		}
		check("")
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
}
