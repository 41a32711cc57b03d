package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// limit is how long anything that must happen may take.
const limit = 30 * time.Second

// inner is the gateway's address behind the tunnels.
var inner = netip.MustParseAddr("10.0.0.1")

// site is a gateway behind whose link stand a NAT and clients, with nothing
// running yet.
type site struct {
	*lab.Standard
	lab *lab.Lab
	t   *testing.T
	dir string
}

func newSite(t *testing.T) *site {
	t.Helper()
	require.Have(t, "root", "netns", "bpf", "tun")
	if !isolated {
		t.Fatal("this process has no namespaces of its own")
	}
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		// What is pinned outlives its namespace.
		for _, left := range pinned(t) {
			t.Errorf("left: %s", left)
			os.RemoveAll(left)
		}
	})
	net, err := l.Standard(1)
	if err == nil {
		err = net.Gateway.Address("lo", netip.PrefixFrom(inner, 32))
	}
	if err != nil {
		t.Fatal(err)
	}
	return &site{net, l, t, t.TempDir()}
}

const pins = "/sys/fs/bpf/ikepulse"

// pinned lists the instances that have pins.
func pinned(t *testing.T) (dirs []string) {
	t.Helper()
	entries, err := os.ReadDir(pins)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(pins, e.Name()))
	}
	return dirs
}

// ran is how a command ended.
type ran struct {
	code int
	out  string // stdout and stderr
}

// start starts a copy of this binary as ikepulse.
func (s *site) start(ns *lab.Namespace, out *lab.Transcript, prepare func() error, args ...string) *lab.Process {
	s.t.Helper()
	p, err := ns.Start(lab.Command{Path: "/proc/self/exe", Args: args, Env: append(os.Environ(), asProgram+"=yes"),
		Output: out, Prepare: prepare})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// do runs a command to its end.
func (s *site) do(ns *lab.Namespace, args ...string) ran {
	s.t.Helper()
	var out lab.Transcript
	return s.end(s.start(ns, &out, nil, args...), &out)
}

// end waits for a process.
func (s *site) end(p *lab.Process, out *lab.Transcript) ran {
	s.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(limit):
		s.t.Fatalf("does not end; so far: %s", out)
	}
	var exit *exec.ExitError
	switch err := p.Wait(); {
	case err == nil:
		return ran{0, out.String()}
	case errors.As(err, &exit):
		return ran{exit.ExitCode(), out.String()}
	default:
		s.t.Fatal(err)
		return ran{}
	}
}

// want runs a command and wants its exit code and that it says all of this.
func (s *site) want(ns *lab.Namespace, code int, says []string, args ...string) string {
	s.t.Helper()
	r := s.do(ns, args...)
	if r.code != code {
		s.t.Errorf("%q: exit code %d, want %d: %s", args, r.code, code, r.out)
	}
	for _, text := range says {
		if !strings.Contains(r.out, text) {
			s.t.Errorf("%q does not say %q: %s", args, text, r.out)
		}
	}
	return r.out
}

func (s *site) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// The clients send everything through the tunnel, but for what carries it.
const gatewayConfig = `listen: {addresses: [198.51.100.1]}
xdp: {capacity: 1024, answer_interval: 1s}
shards: 2
defaults: {dpd: {delay: 2s, retransmit: {timeout: 300ms, base: 1.5, tries: 3}}}
connections:
  roadwarriors:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: "*@example.org"}
    pools: [office]
    children: {net: {local_ts: [0.0.0.0/0], remote_ts: [dynamic]}}
pools:
  office: {addresses: 10.99.0.0/24}
secrets:
  - {id: anna@example.org, psk_file: anna.psk}
`

const clientConfig = `listen: {addresses: [10.7.0.2]}
xdp: {capacity: 64, keepalive: pass}
control: {socket: %s/anna.sock}
defaults: {nat_keepalive: 300ms, dpd: {mode: off}}
connections:
  office:
    local: {auth: psk, id: anna@example.org}
    remote: {auth: psk, id: vpn.example.org, addresses: [198.51.100.1]}
    vips: ["0.0.0.0"]
    children: {net: {local_ts: [dynamic], remote_ts: [0.0.0.0/0]}}
secrets:
  - {id: vpn.example.org, psk_file: anna.psk}
`

// psk is a secret whose text must appear nowhere.
const psk = "canary-secret-of-more-than-20-bytes"

// daemon is a running "ikepulse run".
type daemon struct {
	*lab.Process
	log lab.Transcript
}

func (s *site) run(ns *lab.Namespace, args ...string) *daemon {
	s.t.Helper()
	return s.runPrepared(ns, nil, args...)
}

// runPrepared is run with something done by the thread that forks.
func (s *site) runPrepared(ns *lab.Namespace, prepare func() error, args ...string) *daemon {
	s.t.Helper()
	s.write("anna.psk", psk+"\n")
	d := &daemon{}
	d.Process = s.start(ns, &d.log, prepare, append([]string{"run"}, args...)...)
	s.await("a daemon runs", func() error {
		select {
		case <-d.Done():
			s.t.Fatalf("the daemon has ended: %s", &d.log)
		default:
		}
		if !strings.Contains(d.log.String(), "msg=running") {
			return errors.New(d.log.String())
		}
		return nil
	})
	return d
}

// tunnel runs both daemons and brings a tunnel up between them.
func (s *site) tunnel() (gw, client *daemon) {
	s.t.Helper()
	return s.tunnelBy(gatewayConfig)
}

// tunnelBy is tunnel with a gateway of that configuration.
func (s *site) tunnelBy(config string) (gw, client *daemon) {
	s.t.Helper()
	gw = s.run(s.Gateway, "--config", s.write("gateway.yaml", config))
	client = s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", fmt.Sprintf(clientConfig, s.dir)))
	s.want(s.Clients[0], 0, []string{"office is up\n"}, "--instance", "anna", "initiate", "office")
	return gw, client
}

// await waits until f is content.
func (s *site) await(what string, f func() error) {
	s.t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	s.t.Fatalf("not so after %v: %s: %v", limit, what, err)
}

func (s *site) ping(count int) {
	s.t.Helper()
	sent, received, err := s.Clients[0].Ping(s.t.Context(),
		lab.Ping{Dst: inner, Count: count, Interval: 100 * time.Millisecond, Timeout: 5 * time.Second})
	if err != nil || received != sent {
		s.t.Errorf("%d of %d pings answered, %v", received, sent, err)
	}
}

// status asks as a program would.
func (s *site) status(ns *lab.Namespace, args ...string) (st gateway.Status, code int) {
	s.t.Helper()
	r := s.do(ns, append(args, "status", "--json")...)
	if err := json.Unmarshal([]byte(r.out), &st); err != nil {
		s.t.Fatalf("%v: %s", err, r.out)
	}
	return st, r.code
}

// dump is what bpftool prints of a pinned map.
func dump(t *testing.T, name string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("bpftool", "map", "dump", "pinned", filepath.Join(pins, "default", name))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("bpftool: %v: %s", err, &out)
	}
	return out.String()
}

// detached takes XDP off both ends of a tunnel whose daemons have ended.
func (s *site) detached() {
	s.t.Helper()
	s.want(s.Gateway, 0, []string{"g0: detached\n", "removed " + pins + "/default"}, "detach", "g0")
	s.want(s.Clients[0], 0, []string{"c0: detached\n"}, "--instance", "anna", "detach", "--all")
}

// stop sends SIGTERM and wants a quiet end.
func (s *site) stop(daemons ...*daemon) {
	s.t.Helper()
	for _, d := range daemons {
		if err := d.Signal(unix.SIGTERM); err != nil {
			s.t.Fatal(err)
		}
		if r := s.end(d.Process, &d.log); r.code != 0 {
			s.t.Errorf("exit code %d: %s", r.code, r.out)
		}
		if log := d.log.String(); strings.Contains(log, "canary") || strings.Contains(log, "level=ERROR") {
			s.t.Errorf("the log: %s", log)
		}
	}
}

// nothingRuns looks for what a gateway has but while it runs.
func (s *site) nothingRuns() {
	s.t.Helper()
	files, err := filepath.Glob("/run/ikepulse/*")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasPrefix(filepath.Base(file), "anna.") {
			s.t.Errorf("left: %s", file)
		}
	}
	err = s.Gateway.Do(func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_ALL)
		for _, r := range rules {
			if r.Table == gateway.NamesOf("default").Table {
				s.t.Errorf("left: %v", r)
			}
		}
		if link, err := netlink.LinkByName(gateway.NamesOf("default").TUN); err == nil {
			s.t.Errorf("left: %v", link.Attrs().Name)
		}
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
}
