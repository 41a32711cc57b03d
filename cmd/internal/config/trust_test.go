package config

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/ikepulse/ikepulse/test/require"
)

// shown are problems, with folders as seen from the working directory.
func shown(t *testing.T, ps Problems) string {
	t.Helper()
	cwd, err := os.Getwd()
	must(t, err)
	if ps == nil {
		return ""
	}
	text := strings.TrimSuffix(ps.Error(), "\n1 problem; nothing was changed")
	return strings.NewReplacer(cwd+"/", "", cwd, ".").Replace(text)
}

const including = "include: [conf.d/*.yaml]\n" + withSecret

// folderOfAll holds a configuration of three files, each in a folder of its own.
func folderOfAll(t *testing.T) {
	write(t, map[string]string{"a.yaml": including, "conf.d/b.yaml": "pools: {office: {addresses: 10.99.0.0/16}}\n", "s/a.psk": string(secretBytes(32))})
	for _, folder := range []string{"conf.d", "s"} {
		must(t, os.Chmod(folder, 0o755))
	}
}

// TestWhoElseCanChange: neither a file nor the folder that it is in may be
// changed by anybody but root and us.
func TestWhoElseCanChange(t *testing.T) {
	const (
		everyone = "everyone may write to it (mode %; take that right away: chmod go-w"
		group    = "its group may write to it (mode %; take that right away: chmod g-w"
		stranger = "owned by user 65534, who may change it; give it to root: chown root"
		include  = "a.yaml:1:11: include: conf.d/b.yaml: "
		secret   = "a.yaml:3:41: secrets.psk_file: s/a.psk: "
	)
	says := func(text, mode string) string { return strings.Replace(text, "%", mode+")", 1) }
	for _, c := range []struct {
		path  string
		mode  os.FileMode
		owner int
		want  string
	}{
		{"a.yaml", 0o600, 0, ""},
		{"a.yaml", 0o444, 0, ""},
		{"a.yaml", 0o664, 0, "a.yaml: " + says(group, "0664")},
		{"a.yaml", 0o620, 0, "a.yaml: " + says(group, "0620")},
		{"a.yaml", 0o646, 0, "a.yaml: " + says(everyone, "0646")},
		{"a.yaml", 0o600, 65534, "a.yaml: " + stranger},
		{"conf.d/b.yaml", 0o664, 0, include + says(group, "0664")},
		{"conf.d/b.yaml", 0o666, 0, include + says(everyone, "0666")},
		{"conf.d/b.yaml", 0o600, 65534, include + stranger},
		{"s/a.psk", 0o620, 0, secret + "open to others (mode 0620); make it 0600"},
		{"s/a.psk", 0o600, 65534, secret + stranger},
		{".", 0o775, 0, "a.yaml: the folder .: " + says(group, "0775")},
		{".", 0o755, 65534, "a.yaml: the folder .: " + stranger},
		{".", 0o777 | os.ModeSticky, 0, ""},
		{".", 0o777 | os.ModeSticky, 65534, "a.yaml: the folder .: " + stranger},
		{"conf.d", 0o775, 0, include + "the folder conf.d: " + says(group, "0775")},
		{"conf.d", 0o777, 0, include + "the folder conf.d: " + says(everyone, "0777")},
		{"s", 0o770, 0, secret + "the folder s: " + says(group, "0770")},
		{"s", 0o700, 65534, secret + "the folder s: " + stranger},
	} {
		folderOfAll(t)
		if c.owner != 0 {
			if os.Geteuid() != 0 {
				continue
			}
			must(t, os.Chown(c.path, c.owner, -1))
		}
		must(t, os.Chmod(c.path, c.mode))
		for name, load := range map[string]func(string, Checks) (*Config, Problems){"Load": Load, "Check": Check} {
			_, ps := load("a.yaml", checks)
			if got := shown(t, ps); c.want != "" && got != c.want || c.want == "" && ps != nil {
				t.Errorf("%s, %s of mode %v and owner %d: %s\nwant %s", name, c.path, c.mode, c.owner, got, c.want)
			}
		}
	}
}

// TestEveryOwnershipAtOnce: each of the files is named, a folder once for all
// that is in it.
func TestEveryOwnershipAtOnce(t *testing.T) {
	folderOfAll(t)
	must(t, os.WriteFile("conf.d/c.yaml", nil, 0o600))
	for path, mode := range map[string]os.FileMode{".": 0o777, "conf.d": 0o777, "s": 0o777, "a.yaml": 0o666, "conf.d/b.yaml": 0o666, "conf.d/c.yaml": 0o666, "s/a.psk": 0o666} {
		must(t, os.Chmod(path, mode))
	}
	_, ps := Load("a.yaml", checks)
	for _, name := range []string{"a.yaml: every", "folder .: ", "b.yaml: every", "folder conf.d: ", "c.yaml: every", "a.psk: open", "folder s: "} {
		if strings.Count(shown(t, ps), name) != 1 {
			t.Errorf("not once: %q", name)
		}
	}
	if len(ps) != 7 {
		t.Error(ps.Error())
	}
}

// TestFoldersOnTheWay: whoever may rename a folder on the way to a file, or a
// link, decides what is read.
func TestFoldersOnTheWay(t *testing.T) {
	const everyone = ": everyone may write to it (mode 0777); take that right away: chmod go-w"
	for _, c := range []struct{ open, want string }{
		{"", ""},
		{"up", "the folder up" + everyone},
		{"up/etc", "the folder up/etc" + everyone},
		{"links", "the folder links" + everyone},
		{"links/more", "the folder links/more" + everyone},
		{"real", "the folder real" + everyone},
		{"real/conf", "the folder real/conf" + everyone},
	} {
		write(t, nil)
		for _, folder := range []string{"up/etc", "links/more", "real/conf/sub"} {
			must(t, os.MkdirAll(folder, 0o755))
		}
		must(t, os.WriteFile("real/conf/sub/a.yaml", []byte(minimal), 0o600))
		must(t, os.WriteFile("real/conf/sub/a.psk", secretBytes(32), 0o600))
		must(t, os.Symlink("../../links/here", "up/etc/ikepulse"))
		must(t, os.Symlink("more/there", "links/here"))
		must(t, os.Symlink("../../real/conf", "links/more/there"))
		if c.open != "" {
			must(t, os.Chmod(c.open, 0o777))
		}
		_, ps := Load("up/etc/ikepulse/sub/a.yaml", checks)
		if got := strings.TrimPrefix(shown(t, ps), "up/etc/ikepulse/sub/a.yaml: "); got != c.want {
			t.Errorf("%s is open: %s\nwant %s", c.open, got, c.want)
		}
		if _, _, err := ReadPSK("up/etc/ikepulse/sub/a.psk"); (err == nil) != (c.want == "") || err != nil && !strings.HasSuffix(err.Error(), everyone) {
			t.Errorf("%s is open: the secret of a command: %v", c.open, err)
		}
	}
}

// TestAboveALink: what is above the folder that a link leads to is on the way, and
// not what is above the link.
func TestAboveALink(t *testing.T) {
	const open = "the folder real: everyone may write to it (mode 0777); take that right away: chmod go-w"
	for _, way := range []string{"here/now/../a.yaml", "here/link.yaml"} {
		for mode, want := range map[os.FileMode]string{0o755: "", 0o777: open} {
			write(t, map[string]string{
				"real/a.yaml": "include: [b.yaml]\n" + minimal + "secrets: [{id: a.example.org, psk_file: ./a.psk}]\n",
				"real/b.yaml": "pools: {}\n", "real/a.psk": string(secretBytes(32)),
			})
			for _, folder := range []string{"here", "real/deep"} {
				must(t, os.MkdirAll(folder, 0o755))
			}
			must(t, os.Symlink("../real/deep", "here/now"))
			if way == "here/link.yaml" {
				must(t, os.Symlink("now/../a.yaml", way))
			}
			must(t, os.Symlink("now/../b.yaml", "here/b.yaml"))
			must(t, os.Symlink("now/../a.psk", "here/a.psk"))
			must(t, os.Chmod("real", mode))
			_, ps := Load(way, checks)
			if got := strings.TrimPrefix(shown(t, ps), way+": "); got != want {
				t.Errorf("%s, mode %v: %s\nwant %s", way, mode, got, want)
			}
		}
	}
}

// TestTooManyLinks: a loop that came about after the file was read ends.
func TestTooManyLinks(t *testing.T) {
	write(t, nil)
	must(t, os.Symlink("b", "a"))
	must(t, os.Symlink("a", "b"))
	if err := newTrust().check("a", func(string) {}); !errors.Is(err, syscall.ELOOP) {
		t.Error(err)
	}
}

// TestLinkInAStickyFolder: whoever owns the link may point it elsewhere.
func TestLinkInAStickyFolder(t *testing.T) {
	require.Have(t, "root")
	for owner, want := range map[int]string{0: "", 65534: "the link tmp/a.yaml: owned by user 65534, who may change it; give it to root: chown root"} {
		write(t, map[string]string{"real/b.yaml": minimal})
		must(t, os.Mkdir("tmp", 0o755))
		must(t, os.Symlink("../real/b.yaml", "tmp/a.yaml"))
		must(t, os.Lchown("tmp/a.yaml", owner, -1))
		must(t, os.Chmod("tmp", 0o777|os.ModeSticky))
		_, ps := Load("tmp/a.yaml", checks)
		if got := strings.TrimPrefix(shown(t, ps), "tmp/a.yaml: "); got != want {
			t.Errorf("owner %d: %s, want %s", owner, got, want)
		}
	}
}

// TestSecretByName: a credential of systemd's has its user in an ACL, and is open to
// nobody else although its mode says 0440.
func TestSecretByName(t *testing.T) {
	for user, want := range map[int]string{os.Geteuid(): "", 990: "a.yaml:2:41: secrets.psk_file: s/a.psk: open to others (mode 0640); make it 0600"} {
		write(t, map[string]string{"a.yaml": withSecret, "s/a.psk": string(secretBytes(32))})
		acl := []byte{2, 0, 0, 0}
		for _, e := range [][2]int{{0x01, 6}, {0x02, 4}, {0x04, 0}, {0x10, 4}, {0x20, 0}} { // owner, a user, group, mask, others
			id := ^uint32(0)
			if e[0] == 0x02 {
				id = uint32(user)
			}
			acl = binary.LittleEndian.AppendUint32(append(acl, byte(e[0]), 0, byte(e[1]), 0), id)
		}
		must(t, syscall.Setxattr("s/a.psk", "system.posix_acl_access", acl, 0))
		if _, ps := Load("a.yaml", checks); shown(t, ps) != want {
			t.Errorf("user %d: %s, want %s", user, shown(t, ps), want)
		}
		if _, _, err := ReadPSK("s/a.psk"); (err == nil) != (want == "") {
			t.Errorf("user %d: the secret of a command: %v", user, err)
		}
	}
}
