package control

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/test/require"
)

const (
	nobody   = 65534
	actGID   = 54_001
	readGID  = 54_002
	otherGID = 54_003
)

var (
	actGroup  = &config.Group{Name: "ikepulse", ID: actGID}
	readGroup = &config.Group{Name: "monitor", ID: readGID}
)

// rights is every request that there is, and whether it may change something.
var rights = map[string]right{
	"GET /v1/status":     reading,
	"GET /v1/peers":      reading,
	"GET /v1/sas":        reading,
	"GET /v1/events":     reading,
	"POST /v1/initiate":  acting,
	"POST /v1/terminate": acting,
	"POST /v1/probe":     acting,
	"POST /v1/detach":    acting,
}

// TestEveryRouteHasItsRight: a new request is a new line above, and what the
// API offers is there.
func TestEveryRouteHasItsRight(t *testing.T) {
	routes := newServer(answers(), access{}).routes()
	for _, r := range routes {
		want, known := rights[r.pattern]
		if !known || (want == reading) != r.reads {
			t.Errorf("%s: it reads: %v, want %v (known: %v)", r.pattern, r.reads, want == reading, known)
		}
	}
	if n := reflect.TypeFor[API]().NumField(); n != len(rights) || n != len(routes) {
		t.Errorf("%d functions, %d routes, %d rights", n, len(routes), len(rights))
	}
}

// who are those that the rights are tried with.
var who = map[string]syscall.Credential{
	"root":                 {Uid: 0, Gid: 0},
	"acts, primary":        {Uid: nobody, Gid: actGID},
	"acts, supplementary":  {Uid: nobody, Gid: nobody, Groups: []uint32{otherGID, actGID}},
	"acts, in many groups": {Uid: nobody, Gid: nobody, Groups: append(manyGroups(300), actGID)},
	"reads, primary":       {Uid: nobody, Gid: readGID},
	"reads, supplementary": {Uid: nobody, Gid: nobody, Groups: []uint32{readGID, otherGID}},
	"reads, in many":       {Uid: nobody, Gid: nobody, Groups: append(manyGroups(300), readGID)},
	"both":                 {Uid: nobody, Gid: readGID, Groups: []uint32{actGID}},
	"neither":              {Uid: nobody, Gid: nobody, Groups: []uint32{otherGID}},
	"in root's group":      {Uid: nobody, Gid: 0},
	"a group's number":     {Uid: actGID, Gid: nobody},
}

func manyGroups(n int) (groups []uint32) {
	for i := range n {
		groups = append(groups, uint32(60_000+i))
	}
	return groups
}

// TestRights: real processes of every kind make every request, and nothing is
// done for whom it is not to be done.
func TestRights(t *testing.T) {
	callers := newCallers(t)
	for _, c := range []struct {
		name         string
		control      config.Control
		acts, reads  []string // what begins so
		reader, none string   // what the others are told
	}{
		{"two groups", config.Control{Group: actGroup, ReadGroup: readGroup}, []string{"root", "acts", "both"}, []string{"reads"},
			"permission denied: members of group monitor may only read; root and members of group ikepulse may act",
			"permission denied: only root and members of group ikepulse may act here, and members of group monitor may read; membership counts from the next login on"},
		{"one that acts", config.Control{Group: actGroup}, []string{"root", "acts", "both"}, nil, "",
			"permission denied: only root and members of group ikepulse may use this socket; membership counts from the next login on"},
		{"one that reads", config.Control{ReadGroup: readGroup}, []string{"root"}, []string{"reads", "both"},
			"permission denied: members of group monitor may only read; root may act",
			"permission denied: only root may act here, and members of group monitor may read; membership counts from the next login on"},
		{"none", config.Control{}, []string{"root"}, nil, "", "permission denied: only root may use this socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var done atomic.Int64
			api := answers()
			count := func(context.Context, string) (int, error) { done.Add(1); return 1, nil }
			api.Initiate, api.Terminate, api.Probe, api.Detach = count, count, count, count
			_, path := serve(t, api, c.control)
			if err := os.Chmod(path, 0o666); err != nil { // as if the file did not keep anybody out
				t.Fatal(err)
			}
			var all []request
			acts := int64(0)
			for pattern, takes := range rights {
				method, p, _ := strings.Cut(pattern, " ")
				all = append(all, request{method, p, `{"name": "x"}`})
				if takes == acting {
					acts++
				}
			}
			for name, cred := range who {
				is := func(list []string) bool {
					return slices.ContainsFunc(list, func(p string) bool { return strings.HasPrefix(name, p) })
				}
				done.Store(0)
				for i, said := range callers.ask(cred, path, all) {
					want := ""
					switch {
					case is(c.acts), is(c.reads) && rights[all[i].Method+" "+all[i].Path] == reading:
					case is(c.reads):
						want = c.reader
					default:
						want = c.none
					}
					if said != want {
						t.Errorf("%s: %s: told %q, want %q", name, all[i].Path, said, want)
					}
				}
				want := int64(0)
				if is(c.acts) {
					want = acts
				}
				if n := done.Load(); n != want {
					t.Errorf("%s: %d acts were done, want %d", name, n, want)
				}
			}
		})
	}
}

// TestOtherWaysToAct: no method and no spelling leads a reader past the check.
func TestOtherWaysToAct(t *testing.T) {
	callers := newCallers(t)
	api := answers()
	var done atomic.Int64
	count := func(context.Context, string) (int, error) { done.Add(1); return 1, nil }
	api.Initiate, api.Terminate, api.Probe, api.Detach = count, count, count, count
	_, path := serve(t, api, config.Control{Group: actGroup, ReadGroup: readGroup})
	var all []request
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "post"} {
		for _, p := range []string{"/v1/terminate", "/v1/terminate/", "//v1/terminate", "/v1/status/../terminate", "/v1/%74erminate", "/v1/terminate?x=/v1/status"} {
			all = append(all, request{method, p, `{"name": "x"}`})
		}
	}
	for i, said := range callers.ask(who["reads, primary"], path, all) {
		if said == "" {
			t.Errorf("%s %s was answered", all[i].Method, all[i].Path)
		}
	}
	if n := done.Load(); n != 0 {
		t.Errorf("%d acts were done", n)
	}
}

// TestOwnUser: a daemon that is not root is its own user's.
func TestOwnUser(t *testing.T) {
	a := access{euid: 990}
	for uid, want := range map[uint32]right{0: acting, 990: acting, 991: nothing} {
		if got := a.of(caller{uid: uid, groups: []uint32{990}}); got != want {
			t.Errorf("user %d: %v, want %v", uid, got, want)
		}
	}
}

// TestModes: the file lets in whom it must and, while it is made, nobody.
func TestModes(t *testing.T) {
	require.Have(t, "root")
	for _, umask := range []int{0, 0o077} {
		old := unix.Umask(umask)
		for want, c := range map[string]config.Control{
			"0600 of group 0":     {},
			"0660 of group 54001": {Group: actGroup},
			"0660 of group 54002": {ReadGroup: readGroup},
			"0666 of group 54001": {Group: actGroup, ReadGroup: readGroup},
		} {
			_, path := serve(t, answers(), c)
			if got := modeOf(t, path); got != want {
				t.Errorf("umask %04o: %s, want %s", umask, got, want)
			}
		}
		path := publicDir(t) + "/c.sock"
		l, err := bind(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := modeOf(t, path); got != "0600 of group 0" {
			t.Errorf("umask %04o: it begins as %s", umask, got)
		}
		l.Close()
		unix.Umask(old)
	}
}

func modeOf(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%04o of group %d", info.Mode().Perm(), info.Sys().(*syscall.Stat_t).Gid)
}

// TestClosedFile: who cannot even connect is told who can.
func TestClosedFile(t *testing.T) {
	callers := newCallers(t)
	stranger := who["neither"]
	one := []request{{"GET", "/v1/status", ""}}
	_, path := serve(t, answers(), config.Control{ReadGroup: &config.Group{Name: "daemon", ID: 1}})
	want := "permission denied: only root and members of group daemon may use " + path + "; membership counts from the next login on"
	if said := callers.ask(stranger, path, one)[0]; said != want {
		t.Errorf("told %q, want %q", said, want)
	}
	_, path = serve(t, answers(), config.Control{})
	want = "permission denied: only root may use " + path + "; the configuration's control.group and control.read_group let others in"
	if said := callers.ask(stranger, path, one)[0]; said != want {
		t.Errorf("told %q, want %q", said, want)
	}
	dir := path[:strings.LastIndex(path, "/")]
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	want = "permission denied: only root may use what is in " + dir
	if said := callers.ask(stranger, path, one)[0]; said != want {
		t.Errorf("told %q, want %q", said, want)
	}
}
