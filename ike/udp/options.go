package udp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// unused fails if somebody has the address open. A group shares it with
// everybody of the same user who asks for that, so a second daemon would take
// half of the first one's packets; a bind that does not ask finds out.
func unused(ctx context.Context, local netip.AddrPort) error {
	lc := net.ListenConfig{Control: control(func(fd int) error { return bindAhead(fd, local.Addr()) })}
	conn, err := lc.ListenPacket(ctx, network(local.Addr()), local.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// control is a function for a socket before its bind, as net wants it.
func control(prepare func(fd int) error) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = prepare(int(fd)) }); e != nil {
			return e
		}
		return err
	}
}

// network keeps the families apart: udp6 is IPV6_V6ONLY.
func network(a netip.Addr) string {
	if a.Is4() || a.Is4In6() {
		return "udp4"
	}
	return "udp6"
}

// open opens one socket of a group.
func open(ctx context.Context, c Config) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: control(c.prepare)}
	conn, err := lc.ListenPacket(ctx, network(c.Local.Addr()), c.Local.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// prepare sets what must stand before bind.
func (c Config) prepare(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("SO_REUSEPORT: %w", err)
	}
	if c.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(c.Mark)); err != nil {
			return fmt.Errorf("SO_MARK: %w", err)
		}
	}
	if err := bindAhead(fd, c.Local.Addr()); err != nil {
		return err
	}
	if err := allowFragments(fd, c.Local.Addr()); err != nil {
		return err
	}
	return setBuffer(fd, c.Buffer)
}

// bindAhead lets a socket be bound to an address that is not this host's yet, or
// is tentative: it serves the address from the moment on that the host has it,
// and again whenever it comes back.
func bindAhead(fd int, local netip.Addr) error {
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if network(local) == "udp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fmt.Errorf("bind to an address that may come later: %w", err)
	}
	return nil
}

// allowFragments turns path MTU discovery off: what does not fit, here or on the
// way, is fragmented instead of lost, and a forged ICMP message cannot make us
// send small fragments. IPv6 has no fragmentation on the way: there we go by
// what the path says, and fragment ourselves.
func allowFragments(fd int, local netip.Addr) error {
	level, option, mode := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT
	if network(local) == "udp6" {
		level, option, mode = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT
	}
	if err := unix.SetsockoptInt(fd, level, option, mode); err != nil {
		return fmt.Errorf("path MTU discovery: %w", err)
	}
	return nil
}

// setBuffer asks for a receive buffer, beyond net.core.rmem_max if we may.
func setBuffer(fd, size int) error {
	if size == 0 {
		return nil
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
	if err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	return nil
}

// exempt gives a socket policies of its own that let everything pass, in and
// out; they come before those of the host. A kernel without XFRM needs none.
func exempt(c *net.UDPConn, local netip.Addr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = bypass(int(fd), local) }); e != nil {
		return e
	}
	return err
}

func bypass(fd int, a netip.Addr) error {
	err := setBypass(fd, a)
	if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// setBypass is for a socket of the address's family.
func setBypass(fd int, a netip.Addr) error {
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_XFRM_POLICY
	if network(a) == "udp6" {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_XFRM_POLICY
	}
	const in, out = 0, 1 // XFRM_POLICY_IN, XFRM_POLICY_OUT
	for _, direction := range []byte{in, out} {
		if err := unix.SetsockoptString(fd, level, option, string(allowPolicy(uint16(family), direction))); err != nil {
			return err
		}
	}
	return nil
}

// allowPolicy is a struct xfrm_userpolicy_info of <linux/xfrm.h> for any
// packet, all zero but for family and direction: the action 0 is allow.
func allowPolicy(family uint16, direction byte) []byte {
	const (
		size        = 168
		atFamily    = 40 // sel.family
		atDirection = 160
	)
	p := make([]byte, size)
	binary.NativeEndian.PutUint16(p[atFamily:], family)
	p[atDirection] = direction
	return p
}
