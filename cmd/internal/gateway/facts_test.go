package gateway

import (
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
)

// good is a host that lacks nothing.
func good() facts {
	return facts{release: "6.12.1", bpffs: true, runIsTmpfs: true, rpFilter: 2, cpus: 4, nameServers: addresses("9.9.9.9"),
		nics: []nic{{name: "eth0", driver: "virtio_net", mtu: 1500, queues: 4}}}
}

// TestFindings: each thing is said once, where it is met, and nothing else is.
func TestFindings(t *testing.T) {
	everywhere := []config.Selector{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}
	for _, c := range []struct {
		what  string
		spoil func(*facts, *config.Config)
		name  string
		says  string // "": nothing more than of a good host
	}{
		{"good", func(*facts, *config.Config) {}, "", ""},
		{"old kernel", func(f *facts, _ *config.Config) { f.needs = errors.New("this kernel has no X\nnor Y") }, "kernel", "6.12.1: this kernel has no X; nor Y"},
		{"no BTF", func(f *facts, _ *config.Config) { f.btf = fs.ErrNotExist }, "kernel", "no BTF (/sys/kernel/btf/vmlinux)"},
		{"lockdown", func(f *facts, _ *config.Config) { f.fentry = errors.New("kernel lockdown: not permitted") }, "evidence", "fentry programs are refused (kernel lockdown: not permitted)"},
		{"no bpffs", func(f *facts, _ *config.Config) { f.bpffs = false }, "bpffs", "mount -t bpf bpf /sys/fs/bpf, or run --no-pin"},
		{"run on disk", func(f *facts, _ *config.Config) { f.runIsTmpfs = false }, "records", "/run is no tmpfs"},
		{"little locked memory", func(f *facts, _ *config.Config) { f.swap = errors.New("the limit is 8 MB") }, "swap", "swap device: the limit is 8 MB"},
		{"no TUN", func(f *facts, _ *config.Config) { f.tun = fs.ErrNotExist }, "tun", "file does not exist"},
		{"conntrack", func(f *facts, _ *config.Config) { f.conntrack = true }, "conntrack", "do not refresh"},
		{"conntrack sees all", func(f *facts, c *config.Config) { f.conntrack, c.XDP.Keepalive = true, "pass" }, "", ""},
		{"strict, narrow", func(f *facts, _ *config.Config) { f.rpFilter = 1 }, "", ""},
		{"strict, wide", func(f *facts, c *config.Config) { f.rpFilter, c.Connections[0].Children[0].RemoteTS = 1, everywhere }, "rp_filter", "1 (strict) drops"},
		{"loose, wide", func(_ *facts, c *config.Config) { c.Connections[0].Children[0].LocalTS = everywhere }, "", ""},
		{"a resolver of this host", func(f *facts, c *config.Config) {
			f.nameServers, c.Connections[0].Children[0].RemoteTS = addresses("127.0.0.53"), everywhere
			c.Connections[0].Remote.Addresses = []config.Host{{Name: "vpn.example.org"}}
		}, "names", "127.0.0.53 is a resolver of this host"},
		{"no such address", func(f *facts, _ *config.Config) { f.interfaces = errors.New("no interface here carries it") }, "XDP on", "no interface here carries it"},
		{"jumbo", func(f *facts, _ *config.Config) { f.nics[0].mtu = 9000 }, "XDP on", "MTU 9000, receive queues: 4 for 4 CPUs; most drivers refuse native XDP at this MTU"},
		{"LRO", func(f *facts, _ *config.Config) { f.nics[0].lro = true }, "XDP on", "ethtool -K eth0 lro off"},
		{"few queues", func(f *facts, _ *config.Config) { f.nics[0].queues = 2 }, "XDP on", "only 2 of the CPUs"},
		{"untold queues", func(f *facts, _ *config.Config) { f.nics[0].queues = 0 }, "XDP on", "eth0 (virtio_net), MTU 1500"},
		{"a bond's port", func(f *facts, _ *config.Config) { f.nics[0].astray = errors.New("it is a port") }, "XDP on", "; it is a port"},
		{"an absorbing port", func(f *facts, c *config.Config) {
			f.nics[0].astray, c.XDP.Keepalive = errors.New("it is a port"), "absorb"
		}, "", ""},
	} {
		f, cfg := good(), load(t)
		cfg.XDP.Keepalive = "answer"
		cfg.Connections[0].Children[0].LocalTS = cfg.Connections[1].Children[0].LocalTS // a prefix
		well := f.findings(cfg)
		c.spoil(&f, cfg)
		var changed []Finding
		for _, finding := range f.findings(cfg) {
			if !slices.Contains(well, finding) {
				changed = append(changed, finding)
			}
		}
		switch {
		case c.says == "" && len(changed) == 0:
		case c.says != "" && len(changed) == 1 && changed[0].Name == c.name && strings.Contains(changed[0].Text, c.says):
		default:
			t.Errorf("%s: %q, want %q of %s", c.what, changed, c.says, c.name)
		}
	}
}
