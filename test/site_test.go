package test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// limit is for what must come soon; only a fault waits that long.
const limit = 60 * time.Second

// inner is the gateway's address behind the tunnels.
var inner = netip.MustParseAddr("10.99.0.1")

// site is the standard network with our gateway on it.
type site struct {
	*testing.T
	net *lab.Standard
	gw  *daemon
}

// network builds the standard network, with an inner address at the gateway.
func network(t *testing.T, clients int) *lab.Standard {
	t.Helper()
	require.Have(t, "root", "netns", "bpf", "tun", "strongswan")
	if !isolated {
		t.Fatal("these tests are not in namespaces of their own")
	}
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := l.Standard(clients)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Gateway.Address("lo", netip.PrefixFrom(inner, 32)); err != nil {
		t.Fatal(err)
	}
	return s
}

// newSite starts our gateway in a network.
func newSite(t *testing.T, clients int, c gatewayConfig) *site {
	t.Helper()
	s := &site{T: t, net: network(t, clients)}
	s.gw = start(t, s.net.Gateway, c.yaml(), c.secrets())
	return s
}

// instances numbers the daemons: each has its own pins.
var instances atomic.Int32

// folder makes one for a daemon, and gives it files that nobody else can read.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// await polls for what must become true.
func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("not within %v: %s", limit, what)
}

// ping wants every echo request to be answered.
func ping(t *testing.T, from *lab.Namespace, src, dst netip.Addr, count int, every time.Duration) {
	t.Helper()
	p := lab.Ping{Src: src, Dst: dst, Count: count, Interval: every, Timeout: limit}
	if sent, received, err := from.Ping(t.Context(), p); received != count || err != nil {
		t.Fatalf("ping %v -> %v: %d of %d answered, %v", src, dst, received, sent, err)
	}
}

// routing describes every route, rule and address of a namespace.
func routing(t *testing.T, n *lab.Namespace) (lines []string) {
	t.Helper()
	err := n.Do(func() error {
		all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		routes, err := netlink.RouteListFiltered(unix.AF_INET, all, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range routes {
			lines = append(lines, fmt.Sprintf("route %v in table %d, type %d", r.Dst, r.Table, r.Type))
		}
		rules, err := netlink.RuleList(unix.AF_INET)
		if err != nil {
			return err
		}
		for _, r := range rules {
			lines = append(lines, "rule "+r.String())
		}
		addresses, err := netlink.AddrList(nil, unix.AF_INET)
		for _, a := range addresses {
			lines = append(lines, fmt.Sprintf("address %v on link %d", a.IPNet, a.LinkIndex))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// udpCounters reads the counters of a namespace's UDP sockets.
func udpCounters(t *testing.T, n *lab.Namespace) map[string]int {
	t.Helper()
	var text []byte
	err := n.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	var names []string
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "Udp: ")
		if !ok {
			continue
		}
		if names == nil {
			names = strings.Fields(rest)
			continue
		}
		for i, value := range strings.Fields(rest) {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(line)
			}
			out[names[i]] = n
		}
	}
	if _, ok := out["InDatagrams"]; !ok {
		t.Fatalf("no UDP counters in %s", text)
	}
	return out
}
