package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network records links, addresses, routes of every table and rules. Nothing
// with a lifetime or a counter goes in: two looks at the same must be equal.
func (inv *Inventory) network() error {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		inv.add("link", l.Attrs().Name)
	}
	addresses, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	for _, a := range addresses {
		inv.add("address", fmt.Sprintf("%s on %s", a.IPNet, names[a.LinkIndex]))
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if err := inv.routing(family, names); err != nil {
			return err
		}
	}
	return nil
}

func (inv *Inventory) routing(family int, names map[int]string) error {
	every := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, every, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, r := range routes {
		inv.add("route", fmt.Sprintf("%s via %s dev %s table %d type %d metric %d",
			r.Dst, r.Gw, names[r.LinkIndex], r.Table, r.Type, r.Priority))
	}
	rules, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a kernel without policy routing for the family
	}
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	for _, r := range rules {
		inv.add("rule", fmt.Sprintf("family %d %s", family, r))
	}
	return nil
}

// dump repeats a netlink dump that a concurrent change has interrupted.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	const tries = 10
	for try := 1; ; try++ {
		items, err := list()
		if try == tries || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return items, err
		}
	}
}

// namespaces records other network namespaces that this process holds, by a
// thread or by a descriptor.
func (inv *Inventory) namespaces() error {
	self, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	for _, pattern := range []string{"/proc/self/task/*/ns/net", "/proc/self/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			target, err := os.Readlink(path) // a thread or descriptor may be gone
			if err == nil && strings.HasPrefix(target, "net:") && target != self {
				inv.add("namespace", target)
			}
		}
	}
	return nil
}

// mounts records the mounts of this process's mount namespace, and the pins in
// those of the BPF file system.
func (inv *Inventory) mounts() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc(5): id parent device root MOUNTPOINT options … - TYPE source …
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 1 {
			return fmt.Errorf("mountinfo: %q", lines.Text())
		}
		point := fields[4]
		// The id tells a mount from another on top of it.
		inv.add("mount", fmt.Sprintf("%s %s %s", fields[0], kind[0], point))
		if kind[0] == "bpf" {
			walk(point, func(path string, _ fs.DirEntry) { inv.add("pin", path) })
		}
	}
	return lines.Err()
}
