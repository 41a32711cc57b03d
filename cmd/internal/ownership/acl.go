package ownership

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// An ACL as the kernel gives it: a version, and entries of a tag, permissions and
// a user or group. See acl(5)
const (
	aclVersion = 2
	aclHead    = 4
	aclEntry   = 8

	aclOwner = 0x01
	aclUser  = 0x02
	aclMask  = 0x10
)

// OnlyByName tells that nobody but root and the user that we run as may open a
// file, although its mode has bits for its group: those are the mask of an ACL
// that lets us in by name, as on the credentials that systemd gives to a service
// of another user than root.
func OnlyByName(path string) bool {
	b := make([]byte, 1024)
	n, err := unix.Getxattr(path, "system.posix_acl_access", b)
	return err == nil && onlyByName(b[:n], os.Geteuid())
}

func onlyByName(acl []byte, euid int) bool {
	if len(acl) < aclHead || binary.LittleEndian.Uint32(acl) != aclVersion {
		return false
	}
	for acl = acl[aclHead:]; len(acl) >= aclEntry; acl = acl[aclEntry:] {
		tag, may, id := binary.LittleEndian.Uint16(acl), binary.LittleEndian.Uint16(acl[2:]), binary.LittleEndian.Uint32(acl[4:])
		ours := tag == aclOwner || tag == aclMask || tag == aclUser && (id == 0 || id == uint32(euid))
		if may != 0 && !ours {
			return false
		}
	}
	return len(acl) == 0
}
