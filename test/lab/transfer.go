package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// Transfer sends so many bytes by a TCP connection of its own from one namespace
// to an address of another, and returns how many have arrived when that is all of
// them or within has passed. A connection that cannot be had is an error.
func Transfer(from, to *Namespace, at netip.AddrPort, size int, within time.Duration) (arrived int, err error) {
	deadline := time.Now().Add(within)
	var listener *net.TCPListener
	err = to.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("listen on %v in namespace %s: %w", at, to.name, err)
	}
	defer listener.Close()
	var sender net.Conn
	err = from.Do(func() (err error) {
		sender, err = net.DialTimeout("tcp", at.String(), within)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("call %v from namespace %s: %w", at, from.name, err)
	}
	defer sender.Close() // ends the goroutine, too
	go func() {
		_, _ = sender.Write(make([]byte, size)) // what has arrived is counted
	}()
	receiver, err := listener.Accept()
	if err != nil {
		return 0, err
	}
	defer receiver.Close()
	if err := receiver.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	arrived, err = io.ReadFull(receiver, make([]byte, size))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return arrived, err
}
