package udp

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Outside has a socket talk beside the tunnels, as the gateway's own do: it is
// the Control of a [net.Dialer] to addresses that a tunnel may cover. The mark is
// that of the gateway's sockets.
func Outside(mark uint32) func(network, address string, raw syscall.RawConn) error {
	return func(network, address string, raw syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return control(func(fd int) error { return setOutside(fd, to.Addr(), mark) })(network, address, raw)
	}
}

func setOutside(fd int, to netip.Addr, mark uint32) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return fmt.Errorf("SO_MARK: %w", err)
	}
	if err := bypass(fd, to); err != nil {
		return fmt.Errorf("exempt a socket from IPsec policies: %w", err)
	}
	return nil
}
