package lab_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// limit is for what must come at once; only a fault waits that long.
const limit = 20 * time.Second

func namespace(t *testing.T, l *lab.Lab, name string) *lab.Namespace {
	t.Helper()
	n, err := l.Namespace(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// listen opens a UDP socket in a namespace.
func listen(t *testing.T, n *lab.Namespace, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := n.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn *net.UDPConn, b []byte, to netip.AddrPort) {
	t.Helper()
	if _, err := conn.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatal(err)
	}
}

// receive returns the next datagram and where it came from.
func receive(t *testing.T, conn *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	n, from, err := conn.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func TestNamespaceIsApart(t *testing.T) {
	require.Have(t, "root", "netns")
	l := build(t)
	a, b := namespace(t, l, "a"), namespace(t, l, "b")
	if err := lab.Connect(lab.End{Namespace: a, Name: "x"}, lab.End{Namespace: b, Name: "y"}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		n    *lab.Namespace
		want string
	}{{a, "lo x"}, {b, "lo y"}} {
		if got := interfaces(t, tt.n); got != tt.want {
			t.Errorf("namespace %s has %q, want %q", tt.n.Name(), got, tt.want)
		}
	}
}

func interfaces(t *testing.T, n *lab.Namespace) string {
	t.Helper()
	var names []string
	err := n.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().Flags&net.FlagUp == 0 {
				return fmt.Errorf("%s is down", l.Attrs().Name)
			}
			names = append(names, l.Attrs().Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func TestNetnsPath(t *testing.T) {
	require.Have(t, "root", "netns")
	n := namespace(t, build(t), "a")
	var inside string
	if err := n.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(n.NetnsPath()); err != nil || got != inside {
		t.Errorf("NetnsPath leads to %q, %v; the namespace is %q", got, err, inside)
	}
	if here, _ := os.Readlink("/proc/self/ns/net"); here == inside {
		t.Error("the namespace is the test's own")
	}
}

func TestDo(t *testing.T) {
	require.Have(t, "root", "netns")
	l := build(t)
	n := namespace(t, l, "a")
	fault := errors.New("fault")
	if err := n.Do(func() error { return fault }); err != fault {
		t.Errorf("Do = %v, want the function's error", err)
	}
	if err := n.Do(func() error { return n.Do(func() error { return fault }) }); err != fault {
		t.Errorf("nested Do = %v, want the function's error", err)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do returned nil for a function that did not return")
	}
	if err := n.Do(func() error { return nil }); err != lab.ErrClosed {
		t.Errorf("Do without a thread = %v, want ErrClosed", err)
	}
}

func TestClosed(t *testing.T) {
	require.Have(t, "root", "netns")
	l := build(t)
	n := namespace(t, l, "a")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Start(lab.Command{Path: "/bin/true"}); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Start after Close = %v, want ErrClosed", err)
	}
	if _, err := l.Namespace("b"); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Namespace after Close = %v, want ErrClosed", err)
	}
}

// An end's settings are what the kernel shows.
func TestConnectSettings(t *testing.T) {
	require.Have(t, "root", "netns")
	l := build(t)
	a, b := namespace(t, l, "a"), namespace(t, l, "b")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	addresses := []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	err := lab.Connect(
		lab.End{Namespace: a, Name: "x.1", MAC: mac, MTU: 1400, Addresses: addresses},
		lab.End{Namespace: b, Name: "y"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Do(func() error { return checkSettings("x.1", mac, 1400, addresses) }); err != nil {
		t.Error(err)
	}
	if err := b.Do(func() error { return checkSettings("y", nil, 1500, nil) }); err != nil {
		t.Error(err)
	}
}

func checkSettings(name string, mac net.HardwareAddr, mtu int, addresses []netip.Prefix) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	if link.MTU != mtu || (mac != nil && link.HardwareAddr.String() != mac.String()) {
		return fmt.Errorf("%s has MTU %d and MAC %s, want %d and %s", name, link.MTU, link.HardwareAddr, mtu, mac)
	}
	got, err := link.Addrs()
	if err != nil {
		return err
	}
	if fmt.Sprint(got) != fmt.Sprint(addresses) {
		return fmt.Errorf("%s has addresses %v, want %v", name, got, addresses)
	}
	// A link-local address would come some time later.
	mode, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/addr_gen_mode")
	if err == nil && string(mode) != "1\n" {
		return fmt.Errorf("%s makes up addresses: mode %q", name, mode)
	}
	return nil
}

func TestProcess(t *testing.T) {
	require.Have(t, "root", "netns")
	n := namespace(t, build(t), "a")
	var out lab.Transcript
	p, err := n.Start(lab.Command{
		Path: "/bin/sh", Args: []string{"-c", "readlink /proc/self/ns/net; echo $WORD >&2; pwd; exit 3"},
		Env: []string{"WORD=hello"}, Dir: "/proc", Output: &out,
	})
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("Wait = %v, want exit code 3", err)
	}
	inside, err := os.Readlink(n.NetnsPath())
	if err != nil {
		t.Fatal(err)
	}
	if want := inside + "\nhello\n/proc\n"; out.String() != want {
		t.Errorf("output %q, want %q", out.String(), want)
	}
}

func TestProcessStop(t *testing.T) {
	require.Have(t, "root", "netns")
	n := namespace(t, build(t), "a")
	tests := []struct {
		name, script string
		grace        time.Duration
		signal       syscall.Signal
	}{
		{"by request", "echo ready; exec sleep 1000", limit, syscall.SIGTERM},
		{"by force", "trap '' TERM; echo ready; exec sleep 1000", 10 * time.Millisecond, syscall.SIGKILL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out lab.Transcript
			p, err := n.Start(lab.Command{Path: "/bin/sh", Args: []string{"-c", tt.script}, Output: &out})
			if err != nil {
				t.Fatal(err)
			}
			await(t, "the script is ready", func() bool { return out.String() == "ready\n" })
			var exit *exec.ExitError
			err = p.Stop(tt.grace)
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != tt.signal {
				t.Errorf("Stop = %v, want %v", err, tt.signal)
			}
		})
	}
}

// A process that has left its parent ends with the lab, too.
func TestCloseKillsOrphans(t *testing.T) {
	require.Have(t, "root", "netns")
	l := build(t)
	var out lab.Transcript
	p, err := namespace(t, l, "a").Start(lab.Command{
		Path: "/bin/sh", Args: []string{"-c", "sleep 1000 >/dev/null 2>&1 & echo $!"}, Output: &out,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	var orphan int
	if _, err := fmt.Sscan(out.String(), &orphan); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(orphan, 0); err != nil {
		t.Fatalf("the orphan does not run: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	await(t, "the orphan is gone", func() bool { return syscall.Kill(orphan, 0) == syscall.ESRCH })
}

// What a process is prepared with is its own: the namespace's later processes
// and this one do not see it.
func TestPrivateRun(t *testing.T) {
	require.Have(t, "root", "netns")
	n := namespace(t, build(t), "a")
	list := func(prepare func() error) string {
		var out lab.Transcript
		p, err := n.Start(lab.Command{
			Path: "/bin/sh", Args: []string{"-c", "ls -A /run; touch /run/ikepulse-lab-mark"},
			Output: &out, Prepare: prepare,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			t.Fatal(err, out.String())
		}
		return out.String()
	}
	for range 2 {
		if got := list(lab.PrivateRun); got != "" {
			t.Errorf("the private /run holds %q", got)
		}
	}
	if _, err := os.Stat("/run/ikepulse-lab-mark"); err == nil {
		os.Remove("/run/ikepulse-lab-mark")
		t.Error("a process with a private /run wrote into the machine's")
	}
}

// await polls for what must come at once.
func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("not within %v: %s", limit, what)
}
