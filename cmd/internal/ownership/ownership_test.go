package ownership

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ikepulse/ikepulse/test/require"
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

// TestWithin: a number that the namespace does not have stands for anybody outside.
func TestWithin(t *testing.T) {
	const host, root, container = "         0          0 4294967295\n", "0 1000 1\n", "0 1000 1\n1 100000 65536\n"
	for _, c := range []struct {
		uids string
		uid  int
		want bool
	}{
		{host, 0, true}, {host, 65534, true}, {host, -1, false}, {root, 0, true}, {root, 1, false}, {root, 65534, false},
		{container, 65534, true}, {container, 65536, true}, {container, 65537, false}, {"", 0, false},
	} {
		if got := within(c.uids, c.uid); got != c.want {
			t.Errorf("%+v", c)
		}
	}
}

// TestOutside: of a file that somebody outside owns no chown is asked for.
func TestOutside(t *testing.T) {
	const asked = "IKEPULSE_TEST_OUTSIDE"
	if path := os.Getenv(asked); path != "" {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := Complaint(info); !strings.HasPrefix(got, "owned by a user outside of this user namespace (seen as 65534)") {
			t.Errorf("%q", got)
		}
		return
	}
	require.Have(t, "root")
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 990, -1); err != nil {
		t.Fatal(err)
	}
	inside := exec.Command(os.Args[0], "-test.run=^TestOutside$", "-test.v")
	inside.Env = append(os.Environ(), asked+"="+path)
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}}
	if out, err := inside.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestOutside") {
		t.Errorf("%v\n%s", err, out)
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
