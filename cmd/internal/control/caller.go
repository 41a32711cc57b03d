package control

import (
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// caller is who has connected, as the kernel noted it at that moment.
type caller struct {
	uid    uint32
	groups []uint32 // the primary one and all others
}

// callerOf asks the kernel.
func callerOf(c *net.UnixConn) (who caller, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return who, err
	}
	outer := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		who.uid = cred.Uid
		who.groups, err = peerGroups(fd)
		who.groups = append(who.groups, cred.Gid)
	})
	return who, errors.Join(outer, err)
}

// peerGroups are the supplementary groups of the other end. The kernel says how
// much room they need where there is too little.
func peerGroups(fd uintptr) ([]uint32, error) {
	const gid = uint32(unsafe.Sizeof(uint32(0)))
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups)) * gid
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case e == 0:
			return groups[:size/gid], nil
		case e != unix.ERANGE || size <= uint32(len(groups))*gid:
			return nil, e
		}
		groups = make([]uint32, size/gid)
	}
}
