package tun

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// IPv6Off says by which setting an interface of this host has no IPv6, one that
// is to be made if none is there of that name; "" is that it has.
func IPv6Off(ifname string) string {
	if _, err := os.Stat("/proc/thread-self/net/if_inet6"); err != nil {
		return "this kernel has no IPv6"
	}
	if value, err := ipv6Setting(ifname); err == nil && value == "0" {
		return ""
	}
	for _, name := range []string{"all", "default", ifname} {
		if value, err := ipv6Setting(name); err == nil && value == "1" {
			return fmt.Sprintf("net.ipv6.conf.%s.disable_ipv6 is 1", name)
		}
	}
	return ""
}

func ipv6Setting(ifname string) (string, error) {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + ifname + "/disable_ipv6")
	return strings.TrimSpace(string(b)), err
}

// unlessOff drops an error about an IPv6 route or address where the interface
// has no IPv6: whoever uses the device says so, and IPv4 goes on.
func (n *network) unlessOff(a netip.Addr, err error) error {
	refused := []error{unix.EACCES, unix.EPERM, unix.ESRCH, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT, unix.EOPNOTSUPP}
	if err == nil || !a.Is6() || ignore(err, refused...) != nil || IPv6Off(n.link.Attrs().Name) == "" {
		return err
	}
	return nil
}
