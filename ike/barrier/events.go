package barrier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What has changed.
type What uint8

const (
	Unknown What = iota // anything: events were lost
	LinkChanged
	AddressChanged
	RouteAdded
	RouteGone
	RuleGone
	FilterChanged
	PolicyChanged
)

// Event is a change in the network namespace, whoever made it.
type Event struct {
	What  What
	Link  string       // name, of LinkChanged
	Table int          // of RouteAdded, RouteGone
	To    netip.Prefix // of RouteAdded, RouteGone
	Type  int          // of RouteAdded, RouteGone: RTN_UNICAST and so on
	Name  string       // of the nftables table, of FilterChanged
	Owner uint32       // of PolicyChanged: the selector's user; 0: anybody
}

// Events hears of changes.
type Events struct {
	sockets []listener
}

// listener hears of one subsystem of the kernel.
type listener struct {
	*os.File
	decode func(syscall.NetlinkMessage) (Event, bool)
}

// Listen begins to hear of changes in the network namespace of the calling
// thread. What a kernel without nftables or XFRM does not tell is not heard.
func Listen() (*Events, error) {
	e := &Events{}
	const routing = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE |
		unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_IPV4_RULE | 1<<(unix.RTNLGRP_IPV6_RULE-1)
	for _, s := range []struct {
		protocol int
		groups   uint32
		decode   func(syscall.NetlinkMessage) (Event, bool)
	}{
		{unix.NETLINK_ROUTE, routing, decodeRouting},
		{unix.NETLINK_NETFILTER, 1 << (unix.NFNLGRP_NFTABLES - 1), decodeNFTables},
		{unix.NETLINK_XFRM, 1 << (nl.XFRMNLGRP_POLICY - 1), decodePolicy},
	} {
		err := e.open(s.protocol, s.groups, s.decode)
		if err != nil && (s.protocol == unix.NETLINK_ROUTE || !errors.Is(err, unix.EPROTONOSUPPORT)) {
			return nil, errors.Join(err, e.Close())
		}
	}
	return e, nil
}

func (e *Events) open(protocol int, groups uint32, decode func(syscall.NetlinkMessage) (Event, bool)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err == nil {
		e.sockets = append(e.sockets, listener{os.NewFile(uintptr(fd), "netlink"), decode})
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		return fmt.Errorf("netlink events: %w", err)
	}
	return nil
}

// Close ends what is left of Serve.
func (e *Events) Close() error {
	var errs []error
	for _, s := range e.sockets {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Serve gives each event to take, one after the other, until ctx ends or a
// socket fails.
func (e *Events) Serve(ctx context.Context, take func(Event)) error {
	wake := func() {
		for _, s := range e.sockets {
			_ = s.SetReadDeadline(time.Unix(1, 0)) // fails if closed, and then so has the read
		}
	}
	stop := context.AfterFunc(ctx, wake)
	defer stop()
	heard, ended := make(chan Event), make(chan error)
	for _, s := range e.sockets {
		go func() { ended <- read(s, heard) }() // stops with the deadline
	}
	var errs []error
	for len(errs) < len(e.sockets) {
		select {
		case ev := <-heard:
			take(ev)
		case err := <-ended:
			errs = append(errs, err)
			wake() // half of what happens is not enough
		}
	}
	return errors.Join(errs...)
}

func read(s listener, heard chan<- Event) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n := 0
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, _, failed = unix.Recvfrom(int(fd), buf, 0)
			return failed != unix.EAGAIN
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case failed == unix.ENOBUFS:
			heard <- Event{What: Unknown}
			continue
		case failed != nil:
			return failed
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			heard <- Event{What: Unknown}
			continue
		}
		for _, m := range messages {
			if ev, ok := s.decode(m); ok {
				heard <- ev
			}
		}
	}
}

// decodeRouting tells what a message means, if it means anything to us.
func decodeRouting(m syscall.NetlinkMessage) (Event, bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return Event{What: LinkChanged, Link: attribute(m.Data, unix.SizeofIfInfomsg, unix.IFLA_IFNAME)}, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return Event{What: AddressChanged}, true
	case unix.RTM_DELRULE:
		return Event{What: RuleGone}, true
	case unix.RTM_NEWROUTE:
		return decodeRoute(RouteAdded, m.Data)
	case unix.RTM_DELROUTE:
		return decodeRoute(RouteGone, m.Data)
	}
	return Event{}, false
}

func decodeNFTables(m syscall.NetlinkMessage) (Event, bool) {
	if m.Header.Type>>8 == unix.NFNL_SUBSYS_NFTABLES && m.Header.Type&0xff != unix.NFT_MSG_NEWGEN {
		const sizeofNfgenmsg, nameOfTable = 4, 1
		return Event{What: FilterChanged, Name: attribute(m.Data, sizeofNfgenmsg, nameOfTable)}, true
	}
	return Event{}, false
}

// decodePolicy tells of policies whose selector it shows, and of those that are
// gone all at once or by a number.
func decodePolicy(m syscall.NetlinkMessage) (Event, bool) {
	switch nl.XfrmMsgType(m.Header.Type) {
	case nl.XFRM_MSG_FLUSHPOLICY:
		return Event{What: PolicyChanged}, true
	case nl.XFRM_MSG_NEWPOLICY, nl.XFRM_MSG_UPDPOLICY, nl.XFRM_MSG_DELPOLICY:
		if len(m.Data) < nl.SizeofXfrmSelector { // which all of them begin with
			return Event{What: Unknown}, true
		}
		sel := nl.DeserializeXfrmSelector(m.Data)
		return Event{What: PolicyChanged, Owner: sel.User}, sel.User != 0 || sel.Family == 0
	}
	return Event{}, false
}

// attribute is the text of an attribute behind a header of that size.
func attribute(b []byte, header int, kind uint16) string {
	if len(b) < header {
		return ""
	}
	attrs, err := nl.ParseRouteAttr(b[header:])
	if err != nil {
		return ""
	}
	for _, a := range attrs {
		if a.Attr.Type == kind {
			return unix.ByteSliceToString(a.Value)
		}
	}
	return ""
}

func decodeRoute(what What, b []byte) (Event, bool) {
	if len(b) < unix.SizeofRtMsg {
		return Event{}, false
	}
	r := nl.DeserializeRtMsg(b)
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofRtMsg:])
	if err != nil {
		return Event{}, false
	}
	ev := Event{What: what, Table: int(r.Table), Type: int(r.Type)}
	to := netip.IPv4Unspecified()
	if r.Family == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_TABLE:
			ev.Table = int(binary.NativeEndian.Uint32(a.Value))
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(a.Value)
		}
	}
	ev.To = netip.PrefixFrom(to, int(r.Dst_len))
	return ev, ev.To.IsValid()
}
