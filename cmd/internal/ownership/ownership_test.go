package ownership

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOwner(t *testing.T) {
	for _, c := range []struct {
		uid, euid int
		fine      bool
	}{
		{0, 0, true}, {0, 990, true}, {990, 990, true},
		{990, 0, false}, {991, 990, false}, {-1, 0, false},
	} {
		if got := foreign(c.uid, c.euid); (got == "") != c.fine {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestMode: who else can write, and who can only read.
func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	const group, everyone = "its group may write to it", "everyone may write to it"
	for _, c := range []struct {
		mode            fs.FileMode
		file, directory string
	}{
		{0o600, "", ""}, {0o644, "", ""}, {0o755, "", ""},
		{0o664, group, group}, {0o660, group, group}, {0o620, group, group}, {0o775, group, group},
		{0o666, everyone, everyone}, {0o646, everyone, everyone}, {0o602, everyone, everyone},
		{0o777 | fs.ModeSticky, everyone, ""}, {0o770 | fs.ModeSticky, group, ""}, {0o755 | fs.ModeSticky, "", ""},
		{0o775 | fs.ModeSetgid, group, group},
	} {
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, is := range []struct{ got, want string }{{Complaint(info), c.file}, {DirectoryComplaint(info), c.directory}} {
			if is.want == "" && is.got != "" || !strings.HasPrefix(is.got, is.want) {
				t.Errorf("%v: %q, want %q", c.mode, is.got, is.want)
			}
		}
	}
}
