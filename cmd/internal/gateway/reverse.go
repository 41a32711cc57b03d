package gateway

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/barrier"
)

// markedPath has the filter by the reverse path look at a packet's mark.
const markedPath = "net/ipv4/conf/all/src_valid_mark"

// anywhere reports whether somebody may send to us from an address that a tunnel
// covers and nobody has written down: a peer, or the name server that we ask for
// one. For the filter by the reverse path, even a loose one, there is no way to
// such an address while the tunnel is missing, and so it drops what would bring
// it up, unless it minds the mark that our nftables give that. IPv6 has no such
// filter.
func anywhere(c *config.Config) bool {
	v4 := func(p netip.Prefix) bool { return p.Addr().Is4() }
	covered := slices.ContainsFunc(covers(c).Tunnels, func(t barrier.Tunnel) bool { return slices.ContainsFunc(t.Remote, v4) })
	return covered && c.Unprotected != "pass" && slices.ContainsFunc(c.Connections, func(conn config.Connection) bool {
		return len(conn.Remote.Addresses) == 0 || len(conn.Remote.Names()) > 0
	})
}

// mindMarks has the host do so, if that is needed. It stays when we end: others
// may have come to rely on it, and alone it changes nothing.
func (d *daemon) mindMarks() {
	if !anywhere(d.Config) || !d.guard.marks() || sysctlNumber(markedPath) != 0 {
		return
	}
	if err := os.WriteFile("/proc/sys/"+markedPath, []byte("1"), 0); err != nil {
		d.Log.Warn("net.ipv4.conf.all.src_valid_mark cannot be set", "error", err)
		return
	}
	d.Log.Info("net.ipv4.conf.all.src_valid_mark is set to 1, so that rp_filter lets in what brings a tunnel up")
}

// reverseFilters are the interfaces that have the filter by their own setting or,
// with "all", that for all of them.
func reverseFilters() (names []string) {
	settings, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter") // the pattern is a good one
	for _, path := range settings {
		if sysctlNumber(strings.TrimPrefix(path, "/proc/sys/")) != 0 {
			names = append(names, filepath.Base(filepath.Dir(path)))
		}
	}
	return names
}

// marks reports whether what brings a tunnel up comes in with our mark.
func (g *guard) marks() bool {
	return slices.ContainsFunc(g.filters, func(f barrier.Filter) bool { return f.Kind() == "nftables" })
}

// reverseProblem says what the filter would drop. Where no nftables give the mark,
// to mind it does not help.
func (d *daemon) reverseProblem() string {
	if !anywhere(d.Config) {
		return ""
	}
	marks, names := d.guard.marks(), reverseFilters()
	if len(names) == 0 || marks && sysctlNumber(markedPath) != 0 {
		return ""
	}
	const drops = "rp_filter drops what comes from peers and name servers that a tunnel covers while it is missing: "
	if marks {
		return drops + "sysctl -w net.ipv4.conf.all.src_valid_mark=1"
	}
	remedy := drops + "without nftables it must be off: sysctl -w"
	for _, name := range names {
		remedy += " net.ipv4.conf." + strings.ReplaceAll(name, ".", "/") + ".rp_filter=0"
	}
	return remedy
}
