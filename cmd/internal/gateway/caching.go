package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/barrier"
)

// A resolver of this host that asks others (systemd-resolved, dnsmasq, unbound)
// does so without our mark, and so by the tunnel. While that is down the barriers
// stop its questions, and the name of the peer that would bring it up is not found.

const (
	resolvConf = "/etc/resolv.conf"
	// upstreamConf has whom systemd-resolved asks. systemd-resolved.service(8)
	upstreamConf = "/run/systemd/resolve/resolv.conf"
)

// nameServers are those that the Go resolver takes from a file, and its defaults
// where that has none.
func nameServers(file string) (all []netip.Addr) {
	b, _ := os.ReadFile(file) // without one the defaults hold, too
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				all = append(all, a.WithZone(""))
			}
		}
	}
	if len(all) == 0 {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	}
	return all
}

// upstreams are those whom the resolver of this host asks, as far as it tells.
func upstreams(servers []netip.Addr) []netip.Addr {
	if _, err := os.Stat(upstreamConf); err != nil || !slices.ContainsFunc(servers, stubOfResolved) {
		return nil
	}
	return nameServers(upstreamConf)
}

// stubOfResolved has the two addresses of systemd-resolved(8).
func stubOfResolved(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

// cachingProblem says that the resolver of this host asks by the tunnel.
func (f facts) cachingProblem(c *config.Config) string {
	names := remoteNames(c)
	if c.Unprotected == "pass" || len(names) == 0 || slices.ContainsFunc(f.nameServers, func(a netip.Addr) bool { return !a.IsLoopback() }) {
		return ""
	}
	named := strings.Join(names[:min(len(names), 3)], ", ")
	if len(f.upstreams) == 0 {
		if !coversWorld(c) {
			return ""
		}
		return fmt.Sprintf("%v is a resolver of this host, which asks others by the tunnel: %s is not found while that is down, "+
			"unless they are in bypass or on a private network of this host; or give a nameserver by its address in %s", f.nameServers[0], named, resolvConf)
	}
	conf := covers(c)
	plan := conf.Plan(f.host)
	var behind []string
	for _, a := range f.upstreams {
		if plan.At(netip.PrefixFrom(a, a.BitLen())) == barrier.Covered {
			behind = append(behind, a.String())
		}
	}
	if len(behind) < len(f.upstreams) {
		return "" // the others answer
	}
	all := strings.Join(behind, ", ")
	return fmt.Sprintf("%v is a resolver of this host, which asks %s by the tunnel: %s is not found while that is down; bypass: [%s], or a nameserver by its address in %s",
		f.nameServers[0], all, named, all, resolvConf)
}

// remoteNames are those of peers that we call.
func remoteNames(c *config.Config) (all []string) {
	for i := range c.Connections {
		all = append(all, c.Connections[i].Remote.Names()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// unheard are those of the name servers that a filter does not let answer.
func (g *guard) unheard(servers []netip.Addr) (all []string) {
	deaf := func(f barrier.Filter) bool { return !f.Hears() }
	if !g.named || !slices.ContainsFunc(g.filters, deaf) {
		return nil
	}
	for _, a := range servers {
		if !a.IsLoopback() && g.plan.At(netip.PrefixFrom(a, a.BitLen())) == barrier.Covered {
			all = append(all, a.String())
		}
	}
	return all
}

// byTunnel adds to what a resolver of this host has answered why that may be.
func byTunnel(err error) error {
	var d *net.DNSError
	if !errors.As(err, &d) || d.IsNotFound {
		return briefly(err)
	}
	at, parse := netip.ParseAddrPort(d.Server)
	if parse != nil || !at.Addr().IsLoopback() {
		return briefly(err)
	}
	return fmt.Errorf("%w: perhaps %v asks others by the tunnel; bypass: [their addresses], or a nameserver by its address in %s", briefly(err), at, resolvConf)
}
