package ownership

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOnlyByName: bits for the group are no group's where an ACL names us alone.
func TestOnlyByName(t *testing.T) {
	type entry struct {
		tag, may uint16
		id       uint32
	}
	const group, named, other, none = 0x04, 0x08, 0x20, ^uint32(0)
	us := uint32(os.Geteuid())
	for name, c := range map[string]struct {
		user, group, named, other uint16
		id                        uint32
		want                      bool
	}{
		"we alone":            {user: 4, id: us, want: true},
		"somebody else":       {user: 4, id: us + 990},
		"nobody by name":      {id: us + 990, want: true},
		"we and the group":    {user: 4, id: us, group: 4},
		"we and a group":      {user: 4, id: us, named: 4},
		"we and all":          {user: 4, id: us, other: 4},
		"we, and all to walk": {user: 4, id: us, other: 1},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if OnlyByName(path) {
			t.Fatal("without an ACL it is told by the mode")
		}
		acl := binary.LittleEndian.AppendUint32(nil, aclVersion)
		for _, e := range []entry{{aclOwner, 6, none}, {aclUser, c.user, c.id}, {group, c.group, none}, {named, c.named, 990},
			{aclMask, 4, none}, {other, c.other, none}} {
			acl = binary.LittleEndian.AppendUint16(acl, e.tag)
			acl = binary.LittleEndian.AppendUint16(acl, e.may)
			acl = binary.LittleEndian.AppendUint32(acl, e.id)
		}
		if err := unix.Setxattr(path, "system.posix_acl_access", acl, 0); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode&0o040 == 0 {
			t.Fatalf("%s: the mode is %v", name, mode)
		}
		if got := OnlyByName(path); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if onlyByName(acl[:len(acl)-1], int(us)) || onlyByName(acl[:3], int(us)) {
			t.Errorf("%s: a part is taken for all", name)
		}
	}
}
