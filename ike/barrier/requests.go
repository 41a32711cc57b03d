package barrier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// carryOut makes changes of policies in their order, many by one system call: to
// wait for an answer to each takes longer than the change.
func (f *xfrm) carryOut(all []change) error {
	const many = 64 // the socket has room for as many refusals
	for some := range slices.Chunk(all, many) {
		if err := f.send(some); err != nil {
			return fmt.Errorf("XFRM policies: %w", err)
		}
	}
	return nil
}

// send makes some changes. The kernel tells of each that fails, and of the last
// in any case.
func (f *xfrm) send(some []change) error {
	var b []byte
	asked := map[uint32]change{}
	last := uint32(0)
	for i, c := range some {
		r := c.request()
		if i == len(some)-1 {
			r.Flags |= unix.NLM_F_ACK
		}
		last = atomic.AddUint32(&f.socket.Seq, 1)
		r.Seq, asked[last] = last, c
		b = append(b, r.Serialize()...)
	}
	if err := unix.Sendto(f.socket.Socket.GetFd(), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var errs []error
	for {
		messages, _, err := f.socket.Socket.Receive()
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, m := range messages {
			c, ours := asked[m.Header.Seq]
			if !ours || m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				errs = append(errs, f.failed(c, unix.Errno(errno)))
			}
			if m.Header.Seq == last {
				return errors.Join(errs...)
			}
		}
	}
}

// failed is what it means that a change could not be made.
func (f *xfrm) failed(c change, why unix.Errno) error {
	switch {
	case c.remove && why == unix.ENOENT: // somebody was faster
		return nil
	case !c.remove && why == unix.EAFNOSUPPORT: // without IPv6 there is nothing to block
		delete(f.wanted, c.policy)
		return nil
	}
	return why
}

// request is what the kernel is asked for. A policy that is there is changed,
// and one is removed by its number: to find one of 40,000 by its selector takes
// the kernel 1 ms.
func (c change) request() *nl.NetlinkRequest {
	if c.remove {
		r := nl.NewNetlinkRequest(int(nl.XFRM_MSG_DELPOLICY), 0)
		r.AddData(&nl.XfrmUserpolicyId{Index: c.index, Dir: uint8(c.dir)})
		return r
	}
	r := nl.NewNetlinkRequest(int(nl.XFRM_MSG_UPDPOLICY), 0)
	r.AddData(&nl.XfrmUserpolicyInfo{Sel: c.sel, Dir: uint8(c.dir), Action: uint8(c.action), Priority: c.priority,
		Lft: nl.XfrmLifetimeCfg{SoftByteLimit: nl.XFRM_INF, HardByteLimit: nl.XFRM_INF, SoftPacketLimit: nl.XFRM_INF, HardPacketLimit: nl.XFRM_INF}})
	return r
}
