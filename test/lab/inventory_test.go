package lab_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

func init() {
	helpers["stock"] = stock
	helpers["hold"] = hold
}

// article is a thing that an inventory must show.
type article struct {
	name string
	make func() (undo func() error, err error)
	want string // the line, with numbers that differ from run to run as N
}

const stockFiles = "/run/stock-"

var articles = []article{
	{"a link", newLink, "+ link v0"},
	{"an address", newAddress, "+ address 10.1.0.1/24 on v0"},
	{"a route", newRoute, "+ route 10.5.0.0/16 via <nil> dev lo table 77 type 1 metric 0"},
	{"a rule", newRule, "+ rule family 2 ip rule 100: from all to all table 77 "},
	{"a named namespace", func() (func() error, error) {
		return newFile("/run/netns/x")
	}, "+ namespace /run/netns/x"},
	{"a namespace held by a thread", newNamespace, "+ namespace net:[N]"},
	{"a mount", newMount, "+ mount N tmpfs /run/m"},
	{"a pin", newPin, "+ pin /sys/fs/bpf/x"},
	{"a map", newPin, "+ map N ikepulse_x"},
	{"a program", newProgram, "+ program N ikepulse_lab"},
	{"a link of a program", newAttachment, "+ bpf-link N of ikepulse_lab"},
	{"a socket", newSocket, "+ socket /run/x.sock"},
	{"a process", newProcess, "+ process N sleep"},
	{"a file", func() (func() error, error) { return newFile(stockFiles + "1/f") }, "+ file /run/stock-1/f"},
}

var numbers = regexp.MustCompile(`^(. (?:mount|map|program|bpf-link|process|namespace) (?:net:\[)?)\d+`)

// stock makes each article in an isolated process and checks that it shows,
// and that it shows no longer when it is gone.
func stock() int {
	if !lab.Isolated() {
		code, err := lab.Reexec(os.Args[1:], nil)
		if err != nil {
			return fail(err)
		}
		return code
	}
	if err := errors.Join(lab.Enter(), os.Mkdir("/run/netns", 0o755), os.Mkdir("/run/m", 0o755)); err != nil {
		return fail(err)
	}
	code := 0
	for _, a := range articles {
		if err := a.check(); err != nil {
			code = fail(fmt.Errorf("%s: %w", a.name, err))
		}
	}
	return code
}

func (a article) check() error {
	before, err := lab.Snapshot(stockFiles)
	if err != nil {
		return err
	}
	undo, err := a.make()
	if err != nil {
		return err
	}
	with, err := lab.Snapshot(stockFiles)
	if err != nil {
		return errors.Join(err, undo())
	}
	if err := undo(); err != nil {
		return err
	}
	if diff := masked(lab.Diff(before, with)); !slices.Contains(diff, a.want) {
		return fmt.Errorf("added %q, want %q", diff, a.want)
	}
	if gone := masked(lab.Diff(with, before)); !slices.Contains(gone, "-"+a.want[1:]) {
		return fmt.Errorf("removed %q, want %q", gone, "-"+a.want[1:])
	}
	left, err := before.Leftovers(limit)
	if len(left) > 0 {
		return fmt.Errorf("left %q", left)
	}
	return err
}

func masked(lines []string) []string {
	for i, line := range lines {
		lines[i] = numbers.ReplaceAllString(line, "${1}N")
	}
	return lines
}

func newLink() (func() error, error) {
	v := netlink.NewVeth(netlink.LinkAttrs{Name: "v0"})
	v.PeerName = "v1"
	return func() error { return netlink.LinkDel(v) }, netlink.LinkAdd(v)
}

func newAddress() (func() error, error) {
	undo, err := newLink()
	if err != nil {
		return nil, err
	}
	v0, err := netlink.LinkByName("v0")
	if err != nil {
		return nil, err
	}
	addr, err := netlink.ParseAddr("10.1.0.1/24")
	if err != nil {
		return nil, err
	}
	return undo, netlink.AddrAdd(v0, addr)
}

func newRoute() (func() error, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	dst, err := netlink.ParseIPNet("10.5.0.0/16")
	if err != nil {
		return nil, err
	}
	r := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Table: 77}
	return func() error { return netlink.RouteDel(r) }, netlink.RouteAdd(r)
}

func newRule() (func() error, error) {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Family = 100, 77, netlink.FAMILY_V4
	return func() error { return netlink.RuleDel(r) }, netlink.RuleAdd(r)
}

func newFile(path string) (func() error, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	undo := func() error {
		if strings.HasPrefix(path, stockFiles) {
			return os.RemoveAll(filepath.Dir(path))
		}
		return os.Remove(path)
	}
	return undo, os.WriteFile(path, nil, 0o600)
}

func newNamespace() (func() error, error) {
	l := lab.New()
	_, err := l.Namespace("x")
	return l.Close, err
}

func newMount() (func() error, error) {
	undo := func() error { return unix.Unmount("/run/m", 0) }
	return undo, unix.Mount("tmpfs", "/run/m", "tmpfs", 0, "")
}

func newPin() (func() error, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "ikepulse_x", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, err
	}
	return func() error { return errors.Join(m.Unpin(), m.Close()) }, m.Pin("/sys/fs/bpf/x")
}

func newProgram() (func() error, error) {
	p, err := xdpPass()
	if err != nil {
		return nil, err
	}
	return p.Close, nil
}

func newAttachment() (func() error, error) {
	remove, err := newLink()
	if err != nil {
		return nil, err
	}
	p, err := xdpPass()
	if err != nil {
		return nil, err
	}
	v0, err := net.InterfaceByName("v0")
	if err != nil {
		return nil, err
	}
	x, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: v0.Index})
	return func() error { return errors.Join(x.Close(), p.Close(), remove()) }, err
}

func newSocket() (func() error, error) {
	l, err := net.Listen("unix", "/run/x.sock")
	if err != nil {
		return nil, err
	}
	return l.Close, nil
}

func newProcess() (func() error, error) {
	cmd := exec.Command("/bin/sleep", "1000")
	undo := func() error {
		if err := cmd.Process.Kill(); err != nil {
			return err
		}
		if err := cmd.Wait(); cmd.ProcessState == nil {
			return err
		}
		return nil
	}
	return undo, cmd.Start()
}

func TestSnapshotShows(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	cmd, out := tell(t, "stock")
	if cmd.Wait(); !cmd.ProcessState.Success() {
		t.Errorf("%v\n%s", cmd.ProcessState, out)
	}
}

// hold keeps a program until its input ends.
func hold() int {
	p, err := xdpPass()
	if err != nil {
		return fail(err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return fail(err)
	}
	id, _ := info.ID()
	fmt.Printf("program %d %s\n", id, info.Name)
	_, err = io.Copy(io.Discard, os.Stdin)
	if err != nil {
		return fail(err)
	}
	return 0
}

// A program of ours by name is not ours while somebody else's process holds
// it: another test, or a gateway that runs on the machine.
func TestSnapshotForeignProgram(t *testing.T) {
	require.Have(t, "root", "bpf")
	for _, ours := range []bool{true, false} {
		t.Run(fmt.Sprintf("ours %v", ours), func(t *testing.T) {
			exe := copyOfTest(t)
			var prefixes []string
			if ours {
				prefixes = []string{filepath.Dir(exe)}
			}
			before := snapshot(t, prefixes...)
			line := startOrphan(t, exe)
			shown := slices.Contains(lab.Diff(before, snapshot(t, prefixes...)), "+ "+line)
			if shown != ours {
				t.Errorf("%s shown: %v, want %v", line, shown, ours)
			}
		})
	}
}

func copyOfTest(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(exe, b, 0o700); err != nil {
		t.Fatal(err)
	}
	return exe
}

// startOrphan starts the program so that it is nobody's child, and returns
// what it says. It ends with the test.
func startOrphan(t *testing.T, exe string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Cleanup(func() { w.Close() })
	out, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("/bin/sh", "-c", `"$0" <&3 &`, exe)
	cmd.Env = []string{helper + "=hold"}
	cmd.ExtraFiles = []*os.File{r}
	cmd.Stdout, cmd.Stderr = said, said
	err = cmd.Run()
	said.Close()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestLeftovers(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "x-")
	write := func(name string) {
		if err := os.WriteFile(prefix+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("lost")
	before := snapshot(t, prefix)
	write("late")
	removed := time.AfterFunc(50*time.Millisecond, func() { os.Remove(prefix + "late") })
	defer removed.Stop()
	if left, err := before.Leftovers(limit); len(left) > 0 || err != nil {
		t.Errorf("left %q, %v, although it went", left, err)
	}
	write("stays")
	if err := os.Remove(prefix + "lost"); err != nil {
		t.Fatal(err)
	}
	want := []string{"+ file " + prefix + "stays", "- file " + prefix + "lost"}
	// Long enough for the things that other tests make meanwhile to go.
	if left, err := before.Leftovers(2 * time.Second); !slices.Equal(left, want) || err != nil {
		t.Errorf("left %q, %v; want %q", left, err, want)
	}
}

// Others come and go all the time: no single thing of theirs stays, and none
// that they take away was ours.
func TestLeftoversOfOthers(t *testing.T) {
	require.Have(t, "root", "bpf")
	first, err := xdpPass()
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t)
	first.Close()
	stopped, done := make(chan struct{}), make(chan error)
	go func() { done <- churn(stopped) }() // until stopped is closed
	left, err := before.Leftovers(limit)
	close(stopped)
	if err := errors.Join(err, <-done); len(left) > 0 || err != nil {
		t.Errorf("left %q, %v", left, err)
	}
}

// churn has one program or two at any time, but none for long.
func churn(stopped <-chan struct{}) error {
	var last io.Closer = io.NopCloser(nil)
	for {
		p, err := xdpPass()
		if err != nil {
			return err
		}
		last.Close()
		last = p
		select {
		case <-stopped:
			return p.Close()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
