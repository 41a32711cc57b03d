// Package ownership tells whether somebody else can change a file that we
// trust: somebody who is neither root nor the user that we run as.
package ownership

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Complaint says who else could change a file or what is in a directory, and
// what to do about it, or is "".
func Complaint(info fs.FileInfo) string {
	if text := foreign(uid(info), os.Geteuid()); text != "" {
		return text
	}
	return writable(info.Mode())
}

// DirectoryComplaint is Complaint for the directory of a file that is ours
// itself: where it is sticky, as /tmp is, nobody else can replace that.
func DirectoryComplaint(info fs.FileInfo) string {
	if info.Mode()&fs.ModeSticky != 0 {
		return foreign(uid(info), os.Geteuid())
	}
	return Complaint(info)
}

// LinkComplaint is Complaint for a symbolic link: its mode says nothing, but in
// a directory that is sticky its owner may replace it.
func LinkComplaint(info fs.FileInfo) string { return foreign(uid(info), os.Geteuid()) }

func foreign(uid, euid int) string {
	if uid == 0 || uid == euid {
		return ""
	}
	if uids, err := os.ReadFile("/proc/self/uid_map"); err == nil && !within(string(uids), uid) {
		return fmt.Sprintf("owned by a user outside of this user namespace (seen as %d), who may change it; map him into the namespace as root, or take a place that is owned by a user of it", uid)
	}
	return fmt.Sprintf("owned by user %d, who may change it; give it to root: chown root", uid)
}

// within tells whether a user namespace with that uid_map has a user. See
// user_namespaces(7)
func within(uids string, uid int) bool {
	for line := range strings.Lines(uids) {
		var first, outside, n int
		if _, err := fmt.Sscan(line, &first, &outside, &n); err == nil && uid >= first && uid-first < n {
			return true
		}
	}
	return false
}

func writable(mode fs.FileMode) string {
	switch perm := mode.Perm(); {
	case perm&0o002 != 0:
		return fmt.Sprintf("everyone may write to it (mode %04o); take that right away: chmod go-w", perm)
	case perm&0o020 != 0:
		return fmt.Sprintf("its group may write to it (mode %04o); take that right away: chmod g-w", perm)
	}
	return ""
}

func uid(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
