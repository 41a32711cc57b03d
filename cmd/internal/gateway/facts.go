package gateway

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/tun"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/loader/ethtool"
)

// facts are what was seen of a host, apart from what it means.
type facts struct {
	release    string
	needs, btf error // nil: it is there
	fentry     error // nil: such programs may be loaded
	bpffs      bool  // at its usual place
	runIsTmpfs bool
	swap       error // why records may get there
	tun        error
	conntrack  bool
	rpFilter   int // what a new interface has
	cpus       int
	addresses  whereabouts
	ipv6Off    string // "": the data plane will have IPv6
	interfaces error  // why they are not known
	// nameServers are those that we ask, and upstreams whom one of this host asks.
	nameServers, upstreams []netip.Addr
	host                   barrier.Host
	nics                   []nic
}

// nic is an interface that XDP is to be on.
type nic struct {
	name, driver string
	mtu          int
	queues       int // 0: not told
	lro          bool
	astray       error // why no keepalive can be answered there
	unframed     error // why XDP cannot be there at all
}

// btfFile is the kernel's own description of itself.
const btfFile = "/sys/kernel/btf/vmlinux"

func lookAround(c *config.Config) facts {
	var name unix.Utsname
	_ = unix.Uname(&name)
	_, errBTF := os.Stat(btfFile)
	_, errConntrack := os.Stat("/proc/sys/net/netfilter/nf_conntrack_count")
	f := facts{release: unix.ByteSliceToString(name.Release[:]), needs: loader.Probe(), btf: errBTF, fentry: loader.ProbeFentry(),
		bpffs: isFileSystem("/sys/fs/bpf", unix.BPF_FS_MAGIC), runIsTmpfs: isFileSystem("/run", unix.TMPFS_MAGIC), swap: lockableRecords(c),
		tun: openable("/dev/net/tun"), conntrack: errConntrack == nil, cpus: runtime.NumCPU()}
	for _, which := range []string{"all", "default"} {
		f.rpFilter = max(f.rpFilter, sysctlNumber("net/ipv4/conf/"+which+"/rp_filter"))
	}
	f.nameServers = nameServers(resolvConf)
	f.upstreams = upstreams(f.nameServers)
	f.host = hostHere()
	var err error
	if f.addresses, err = locate(c.Listen.Addresses); err != nil {
		f.interfaces = err
		return f
	}
	f.ipv6Off = tun.IPv6Off("default")
	names := f.addresses.carriers
	if f.interfaces = f.addresses.astray; len(c.Listen.Interfaces) > 0 {
		names, f.interfaces = Interfaces(c)
	}
	for _, name := range names {
		f.nics = append(f.nics, lookAt(name, c.XDP.KeepTags))
	}
	return f
}

func sysctlNumber(path string) (n int) {
	b, err := os.ReadFile("/proc/sys/" + path)
	if err == nil {
		_, _ = fmt.Sscan(string(b), &n) // what is no number is 0: nothing to say about it
	}
	return n
}

// lookAt finds out what it may: some drivers do not tell everything.
func lookAt(name string, keepTags bool) nic {
	n := nic{name: name, driver: ethtool.Driver(name), astray: loader.AnswersGoAstray(name, keepTags), unframed: loader.Framed(name)}
	if c, err := ethtool.Open(); err == nil {
		on, _ := c.Features(name)
		n.lro, n.queues = on[ethtool.LRO], c.Queues(name)
	}
	if dev, err := netlink.LinkByName(name); err == nil {
		n.mtu = dev.Attrs().MTU
	}
	return n
}

// findings says what the facts mean for a configuration.
func (f facts) findings(c *config.Config) []Finding {
	out := []Finding{{"kernel", f.kernel()}}
	if f.fentry != nil {
		out = append(out, Finding{"evidence", "fentry programs are refused (" + oneLine(f.fentry) + "): proof of life comes from our own decryption, not from the kernel's ESP"})
	}
	out = append(out, Finding{"bpffs", either(f.bpffs, "/sys/fs/bpf", "/sys/fs/bpf is none, without which XDP is off: mount -t bpf bpf /sys/fs/bpf, or run --no-pin")},
		Finding{"records", either(f.runIsTmpfs, "/run", "/run is no tmpfs: none are kept, since they hold keys")},
		Finding{"tun", saying("there", f.tun)})
	if f.swap != nil && f.runIsTmpfs {
		out = append(out, Finding{"swap", "records may be written to a swap device: " + oneLine(f.swap)})
	}
	if f.conntrack && c.XDP.Keepalive != "pass" {
		out = append(out, Finding{"conntrack", "it is in use here: keepalives that XDP takes do not refresh its entries"})
	}
	if f.rpFilter == strict && wide(c) {
		out = append(out, Finding{"rp_filter", "1 (strict) drops what comes out of a tunnel to 0.0.0.0/0: sysctl -w net.ipv4.conf.all.rp_filter=2"})
	}
	if p := f.cachingProblem(c); p != "" {
		out = append(out, Finding{"names", p})
	}
	for _, a := range slices.SortedFunc(maps.Keys(f.addresses.absent), netip.Addr.Compare) {
		out = append(out, Finding{"address", fmt.Sprintf("%v: %s; run waits for it, and serves the others", a, f.addresses.absent[a])})
	}
	for _, p := range ipv6Problems(f.ipv6Off, c.Pools) {
		out = append(out, Finding{"ipv6", p})
	}
	if f.interfaces != nil {
		return append(out, Finding{"XDP on", oneLine(f.interfaces)})
	}
	for _, n := range f.nics {
		out = append(out, Finding{"XDP on", n.describe(f.cpus, c.XDP.Keepalive == "answer")})
	}
	return out
}

// strict is the rp_filter that takes a packet only from where an answer to it
// would go.
const strict = 1

func either(so bool, yes, no string) string {
	if so {
		return yes
	}
	return no
}

func (f facts) kernel() string {
	switch {
	case f.needs != nil:
		return f.release + ": " + oneLine(f.needs)
	case f.btf != nil:
		return f.release + ": has what XDP needs, but no BTF (" + btfFile + "): bpftool shows no names of fields"
	}
	return f.release + ": has what XDP needs"
}

// wide tells whether a tunnel's packets may come from anywhere.
func wide(c *config.Config) bool {
	for _, conn := range c.Connections {
		for _, child := range conn.Children {
			for _, ts := range append(child.LocalTS[:len(child.LocalTS):len(child.LocalTS)], child.RemoteTS...) {
				if !ts.Dynamic && ts.Prefix.Addr().Is4() && ts.Prefix.Bits() == 0 {
					return true
				}
			}
		}
	}
	return false
}

// nativeMTU is about where drivers that keep a frame in one page refuse.
const nativeMTU = 3498

// describe says what an interface is, and what on it keeps XDP from its best.
func (n nic) describe(cpus int, answers bool) string {
	parts := []string{n.name}
	if n.driver != "" {
		parts[0] += " (" + n.driver + ")"
	}
	parts = append(parts, fmt.Sprintf("MTU %d", n.mtu))
	if n.queues > 0 {
		parts = append(parts, fmt.Sprintf("receive queues: %d for %d CPUs", n.queues, cpus))
	}
	s := strings.Join(parts, ", ")
	for _, w := range n.warnings(cpus, answers) {
		s += "; " + w
	}
	return s
}

func (n nic) warnings(cpus int, answers bool) (all []string) {
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if n.unframed != nil {
		add("%s", oneLine(n.unframed))
	} else if answers && n.astray != nil {
		add("%s", oneLine(n.astray))
	}
	if n.mtu > nativeMTU {
		add("most drivers refuse native XDP at this MTU, and generic XDP costs more")
	}
	if n.lro {
		add("LRO is on, with which many drivers refuse native XDP: ethtool -K %s lro off", n.name)
	}
	if n.queues > 0 && n.queues < cpus {
		add("only %d of the CPUs share its packets", n.queues)
	}
	return all
}
