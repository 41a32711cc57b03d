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
	"strconv"
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
	return &site{net, t, t.TempDir()}
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
	s.write("anna.psk", psk+"\n")
	d := &daemon{}
	d.Process = s.start(ns, &d.log, nil, append([]string{"run"}, args...)...)
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
	gw = s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
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

func TestAttachDetach(t *testing.T) {
	s := newSite(t)
	s.want(s.Gateway, 0, []string{"g0: attached, native", "198.51.100.1 (those of g0)", "answered, each peer once in 10s",
		"65,536 tunnels", "tcpdump"}, "attach", "g0")
	s.want(s.Gateway, 0, []string{"g0: attached already, native"}, "attach", "g0")
	st, code := s.status(s.Gateway)
	if code != exitDegraded || st.State != gateway.NotRunning || st.Daemon != nil || len(st.XDP.Attachments) != 1 ||
		st.XDP.Attachments[0].Interface != "g0" || st.XDP.Keepalive != "answer" {
		t.Errorf("exit code %d, %+v", code, st)
	}
	s.want(s.Gateway, exitDegraded, []string{"not running\n", "xdp        g0 native, prog ", "0 SPIs that no daemon follows"}, "status")
	s.want(s.Gateway, 0, nil, "stats")
	s.want(s.Gateway, exitError, []string{"capacity is 65536, 7 is wanted", "detach it from g0 first"}, "attach", "g0", "--capacity", "7")
	s.want(s.Gateway, exitError, []string{"no such interface"}, "attach", "g7")
	s.want(s.Gateway, 0, []string{"g7: was not attached\n"}, "detach", "g7")
	s.want(s.Gateway, 0, []string{"g0: detached\n", "removed /sys/fs/bpf/ikepulse/default"}, "detach", "g0")
	s.want(s.Gateway, 0, []string{"nothing is attached\n"}, "detach", "g0")
	if _, err := os.Stat(pins); err == nil {
		t.Errorf("%s is left", pins)
	}
	s.want(s.Gateway, exitDegraded, []string{"xdp        not loaded"}, "status")
}

// TestBpftool: what is pinned speaks for itself, with the names of its fields
// and the numbers that we show.
func TestBpftool(t *testing.T) {
	require.Have(t, "bpftool")
	s := newSite(t)
	gw, client := s.tunnel()
	spi, err := strconv.ParseUint(strings.Fields(s.want(s.Gateway, 0, nil, "sas"))[2], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	for name, field := range map[string]string{
		"ikepulse_locals": `"address": [0,0,0,0,0,0,0,0,0,0,255,255,198,51,100,1`,
		"ikepulse_stats":  `"keepalive_answered": `, "ikepulse_meta": `"capacity": 1024`, "ikepulse_peers": `"owners": 1`,
		"ikepulse_sas": fmt.Sprintf(`"spi": %d,`, spi), "ikepulse_hot": fmt.Sprintf(`"spi": %d,`, spi),
	} {
		if got := dump(t, name); !strings.Contains(got, field) {
			t.Errorf("%s has no %s: %.400s", name, field, got)
		}
	}
	s.stop(gw, client)
	if got := dump(t, "ikepulse_sas"); strings.Contains(got, fmt.Sprint(spi)) {
		t.Errorf("SPI %d has stayed", spi)
	}
	s.detached()
}

// detached takes XDP off both ends of a tunnel whose daemons have ended.
func (s *site) detached() {
	s.t.Helper()
	s.want(s.Gateway, 0, []string{"g0: detached\n", "removed " + pins + "/default"}, "detach", "g0")
	s.want(s.Clients[0], 0, []string{"c0: detached\n"}, "--instance", "anna", "detach", "--all")
}

// TestAttachByConfig: the configuration says what is ours, where, and how.
func TestAttachByConfig(t *testing.T) {
	s := newSite(t)
	s.write("anna.psk", psk)
	file := s.write("gateway.yaml", gatewayConfig)
	s.want(s.Gateway, 0, []string{"g0: attached", "198.51.100.1 (listen.addresses of " + file + ")", "1,024 tunnels", "once in 1s"},
		"attach", "--config", file)
	s.want(s.Gateway, exitError, []string{"keepalive is answer, absorb is wanted"}, "attach", "--config", file, "--keepalive", "absorb")
	s.want(s.Gateway, 0, []string{"g0: detached"}, "detach", "--all")
	s.want(s.Gateway, 0, []string{"counted and dropped"}, "attach", "--config", file, "--keepalive", "absorb")
	s.want(s.Gateway, 0, []string{"g0: detached"}, "detach", "--all")
	elsewhere := s.write("elsewhere.yaml", strings.Replace(gatewayConfig, "198.51.100.1", "198.51.100.9", 1))
	s.want(s.Gateway, exitError, []string{"no interface here carries 198.51.100.9"}, "attach", "--config", elsewhere)
	lo := s.write("lo.yaml", strings.Replace(gatewayConfig, "198.51.100.1", "10.0.0.1", 1))
	s.want(s.Gateway, exitError, []string{"10.0.0.1 is on lo: name the interfaces"}, "attach", "--config", lo)
}

// TestForeignProgram: it is named, and stays.
func TestForeignProgram(t *testing.T) {
	s := newSite(t)
	id := func() (id uint32) { // of what is at the NAT's end of the link
		err := s.NAT.Do(func() error {
			link, err := netlink.LinkByName("n0")
			if err == nil && link.Attrs().Xdp != nil {
				id = link.Attrs().Xdp.ProgId
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := id()
	s.want(s.NAT, exitError, []string{fmt.Sprintf("n0 has another XDP program: ikepulse_lab, id %d", before)}, "attach", "n0")
	s.want(s.NAT, exitError, []string{"n0 has another XDP program"}, "attach", "c0", "n0")
	if after := id(); after != before || before == 0 {
		t.Errorf("program %d became %d", before, after)
	}
	s.want(s.NAT, exitDegraded, []string{"not loaded"}, "status") // nothing stayed loaded
	s.want(s.NAT, 0, []string{"lo: attached, generic"}, "attach", "lo")
	s.want(s.NAT, exitError, []string{"n0 has another XDP program"}, "attach", "lo", "c0", "n0")
	st, _ := s.status(s.NAT)
	if on := st.XDP.Attachments; len(on) != 1 || on[0].Interface != "lo" { // c0 was let go again, lo was not
		t.Errorf("attached: %+v", on)
	}
	s.want(s.NAT, 0, []string{"lo: detached"}, "detach", "--all")
}

func TestTunnel(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(3)
	anna := []string{"--instance", "anna"}

	s.want(s.Gateway, 0, []string{"healthy\n", "tunnels    1 up   0 connecting", "xdp        g0 native", "keepalive: answer"}, "status")
	sas := s.want(s.Gateway, 0, []string{"anna@example.org", "198.51.100.254:", "esp 0s"}, "sas")
	s.want(s.Gateway, 0, []string{"anna@example.org", "roadwarriors", "established", "  peer  "}, "peers")
	s.want(s.Clients[0], 0, []string{"vpn.example.org", "office", "198.51.100.1:4500", "  both  "}, append(anna, "peers")...)
	if fields := strings.Fields(sas); len(fields) < 4 || strings.Contains(sas, "PEER") {
		t.Errorf("not a line for a pipe: %q", sas)
	} else {
		s.want(s.Gateway, 0, []string{"probing 1 IKE SA\n"}, "probe", fields[2])
	}
	s.want(s.Gateway, exitError, []string{`nothing matches "nobody"; there are: anna@example.org, roadwarriors`}, "probe", "nobody")
	s.want(s.Gateway, exitError, []string{`there is no connection "berlin"; none`}, "initiate", "berlin")
	s.want(s.Clients[0], exitError, []string{`there is no connection "berlin"; those that can be called: office`}, append(anna, "initiate", "berlin")...)
	s.want(s.Clients[0], 0, []string{"office is up"}, append(anna, "initiate", "office")...) // again: nothing to do

	s.await("keepalives are answered in XDP, and reach the client", func() error {
		out := s.want(s.Gateway, 0, nil, "stats")
		st, _ := s.status(s.Clients[0], anna...)
		if !strings.Contains(out, "keepalive_answered") || st.Sockets[1].Keepalives == 0 {
			return errors.New(out)
		}
		return nil
	})
	st, _ := s.status(s.Gateway)
	if st.Sockets[0].Keepalives+st.Sockets[1].Keepalives != 0 {
		t.Errorf("keepalives have come to the gateway's sockets: %+v", st.Sockets)
	}
	if ours := st.XDP.Addresses; len(ours) != 1 || ours[0] != lab.GatewayAddr {
		t.Errorf("ours: %v", ours)
	}

	s.want(s.Gateway, 0, []string{"deleting 1 IKE SA\n"}, "terminate", "anna@example.org")
	s.await("the tunnel is gone at both ends", func() error {
		if at, there := s.do(s.Gateway, "sas"), s.do(s.Clients[0], append(anna, "sas")...); at.out+there.out != "" {
			return errors.New(at.out + there.out)
		}
		return nil
	})
	s.want(s.Gateway, exitError, []string{`nothing matches "*": there is no tunnel`}, "terminate", "*")
	s.stop(gw, client)
	s.detached()
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

// TestKilled: the pins of a gateway that was killed say what they know, the
// next one says what it has dropped, and detach leaves nothing.
func TestKilled(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(1)
	line := strings.Fields(s.want(s.Gateway, 0, nil, "sas"))
	if err := gw.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	s.want(s.Gateway, exitDegraded, []string{"not running\n", "xdp        g0 native", "1 SPI that no daemon follows"}, "status")
	s.want(s.Gateway, 0, []string{"-  " + line[1] + "  " + line[2] + "  -  -  ", "  esp "}, "sas")
	s.want(s.Gateway, 0, []string{line[1], "  peer  "}, "peers")
	var sas []gateway.TrackedSA
	if r := s.do(s.Gateway, "sas", "--json"); json.Unmarshal([]byte(r.out), &sas) != nil || len(sas) != 1 || sas[0].InSPI != line[2] || sas[0].Proof != "esp" {
		t.Errorf("%s", r.out)
	}
	s.await("XDP goes on answering", func() error {
		var peers []gateway.TrackedPeer
		r := s.do(s.Gateway, "peers", "--json")
		if err := json.Unmarshal([]byte(r.out), &peers); err != nil || len(peers) != 1 || peers[0].Answered < 3 {
			return errors.New(r.out)
		}
		return nil
	})
	s.want(s.Gateway, exitDegraded, []string{"the daemon is not running"}, "probe", "*")

	again := s.run(s.Gateway, "--config", filepath.Join(s.dir, "gateway.yaml"))
	if log := again.log.String(); !strings.Contains(log, "none survives a restart yet\" spis=1") || !strings.Contains(log, "none survives a restart yet\" sas=1") {
		t.Errorf("the log: %s", log)
	}
	s.want(s.Gateway, 0, []string{"healthy", "tunnels    0 up"}, "status")
	if st, _ := s.status(s.Gateway); st.XDP.SPIs != 0 {
		t.Errorf("the maps still have %d SPIs", st.XDP.SPIs)
	}
	if err := again.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	s.want(s.Gateway, 0, []string{"g0: detached", "removed"}, "detach", "g0")
	s.nothingRuns()
	s.stop(client) // its peer does not answer: five seconds at most
	s.want(s.Clients[0], 0, []string{"c0: detached"}, "--instance", "anna", "detach", "c0")
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

// TestInterrupted: a Ctrl-C with tunnels up leaves the pins and nothing else.
func TestInterrupted(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(1)
	if err := gw.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if r := s.end(gw.Process, &gw.log); r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	s.await("the client has heard the goodbye", func() error {
		if r := s.do(s.Clients[0], "--instance", "anna", "sas"); r.out != "" {
			return errors.New(r.out)
		}
		return nil
	})
	s.nothingRuns()
	s.want(s.Gateway, exitDegraded, []string{"xdp        g0 native", "0 SPIs"}, "status")
	s.stop(client)
	s.detached()
}

// TestSecondSignal: who asks twice does not wait for goodbyes that nobody
// hears.
func TestSecondSignal(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	if err := client.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	for range 2 {
		if err := gw.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // two signals at once are one
	}
	if r := s.end(gw.Process, &gw.log); r.code != exitError {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	s.want(s.Gateway, 0, nil, "detach", "g0")
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "c0")
}

// TestInitiateInterrupted: who stops waiting for a silent peer does not stop
// the attempt.
func TestInitiateInterrupted(t *testing.T) {
	s := newSite(t)
	client := s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", fmt.Sprintf(clientConfig, s.dir)))
	var out lab.Transcript
	p := s.start(s.Clients[0], &out, nil, "--instance", "anna", "initiate", "office")
	s.await("it is under way", func() error {
		if r := s.do(s.Clients[0], "--instance", "anna", "peers"); !strings.Contains(r.out, "init sent") || !strings.Contains(r.out, "  try ") {
			return errors.New(r.out)
		}
		return nil
	})
	if err := p.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if r := s.end(p, &out); r.code != exitError || r.out != "ikepulse: interrupted\n" {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	s.want(s.Clients[0], 0, []string{"init sent"}, "--instance", "anna", "peers")
	s.stop(client)
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "c0")
}

// TestDetachedUnderADaemon: it says that it is degraded, and takes XDP back.
func TestDetachedUnderADaemon(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	s.want(s.Gateway, exitError, []string{"instance default is running already"}, "run", "--config", s.dir+"/gateway.yaml")
	s.want(s.Gateway, 0, []string{"g0: detached", "the daemon runs and keeps the maps"}, "detach", "--all")
	s.want(s.Gateway, exitDegraded, []string{"degraded\n", "problem    XDP is not attached to g0", "ikepulse attach g0"}, "status")
	if err := s.Gateway.Address("g0", netip.MustParsePrefix("198.51.100.77/24")); err != nil {
		t.Fatal(err) // which is not in the configuration
	}
	s.want(s.Gateway, 0, []string{"g0: attached, native", "ours       198.51.100.1 (as the running daemon has them)", "1,024 tunnels"}, "attach", "g0")
	s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
	s.stop(gw)
	s.want(s.Gateway, 0, []string{"g0: detached"}, "detach", "g0")
}

// TestFailedStart: what keeps the daemon from running is said, and nothing of
// the attempt is left.
func TestFailedStart(t *testing.T) {
	s := newSite(t)
	s.write("anna.psk", psk)
	for what, c := range map[string]struct{ from, to, says string }{
		"an address of somebody else": {"198.51.100.1", "198.51.100.9", "no interface here carries 198.51.100.9"},
		"an interface that is not":    {"addresses: [198.51.100.1]", "addresses: [198.51.100.1], interfaces: [g0, g7]", "attaching to g7: no such interface"},
		"a foreign control socket":    {"shards: 2", "control: {socket: /proc/nowhere/x.sock}", "control socket: "},
		"an unknown group":            {"shards: 2", "control: {group: no-such-group}", "no-such-group"},
	} {
		file := s.write("bad.yaml", strings.Replace(gatewayConfig, c.from, c.to, 1))
		s.want(s.Gateway, exitError, []string{c.says}, "run", "--config", file)
		if left := pinned(t); len(left) > 0 {
			t.Errorf("%s: left %q", what, left)
		}
	}
	// A port that is taken, with XDP attached before: that stays.
	s.want(s.Gateway, 0, nil, "attach", "--config", s.write("gateway.yaml", gatewayConfig))
	taken := s.run(s.Gateway, "--instance", "other", "--no-pin", "--config", s.write("other.yaml", strings.Replace(gatewayConfig,
		"addresses: [198.51.100.1]", "addresses: [198.51.100.1], interfaces: [lo]", 1)))
	s.want(s.Gateway, exitError, []string{"listen: ", "198.51.100.1:500", "address already in use"}, "run", "--config", s.dir+"/gateway.yaml")
	s.want(s.Gateway, exitDegraded, []string{"xdp        g0 native"}, "status")
	s.stop(taken)
	s.want(s.Gateway, 0, []string{"g0: detached"}, "detach", "g0")
}

// TestNoBPFFS: nothing is pinned silently where it would vanish.
func TestNoBPFFS(t *testing.T) {
	s := newSite(t)
	s.write("anna.psk", psk)
	file := s.write("gateway.yaml", gatewayConfig)
	without := func() error { // on the thread that forks
		return errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Unmount("/sys/fs/bpf", 0))
	}
	ends := func(code int, says string, args ...string) {
		t.Helper()
		var out lab.Transcript
		if r := s.end(s.start(s.Gateway, &out, without, args...), &out); r.code != code || !strings.Contains(r.out, says) {
			t.Errorf("%q: exit code %d: %s", args, r.code, r.out)
		}
	}
	ends(exitError, "no bpffs: pins would not outlive this process; mount one", "attach", "g0")
	ends(exitError, "or go on without (--no-pin)", "run", "--config", file)
	ends(exitDegraded, "no bpffs is mounted here", "status")
	ends(0, "no bpffs is mounted here", "detach", "g0")

	var log lab.Transcript
	p := s.start(s.Gateway, &log, without, "run", "--config", file, "--no-pin")
	s.await("it runs without pins", func() error {
		if r := s.do(s.Gateway, "status"); r.code != 0 || !strings.Contains(r.out, "xdp        g0 native") {
			return errors.New(r.out + log.String())
		}
		return nil
	})
	s.want(s.Gateway, 0, nil, "stats", "--all")
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := s.end(p, &log); r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	// The program went with the daemon, so another may have the interface.
	s.want(s.Gateway, 0, []string{"g0: attached, native"}, "attach", "g0")
	s.want(s.Gateway, 0, nil, "detach", "g0")
}

// TestNetns: a command enters the namespace and keeps the host's bpffs.
func TestNetns(t *testing.T) {
	s := newSite(t)
	host := s.NAT // a namespace that has no g0
	s.want(host, 0, []string{"g0: attached"}, "--netns", s.Gateway.NetnsPath(), "attach", "g0")
	s.want(s.Gateway, exitDegraded, []string{"xdp        g0 native"}, "status")
	s.want(host, exitError, []string{"serves another network namespace"}, "status")
	s.want(host, exitDegraded, []string{"xdp        g0 native"}, "status", "--netns", s.Gateway.NetnsPath())
	s.want(host, 0, []string{"g0: detached"}, "detach", "g0", "--netns="+s.Gateway.NetnsPath())
}

// TestEvents: what happens is printed as it happens.
func TestEvents(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	client := s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", fmt.Sprintf(clientConfig, s.dir)))
	var text, lines lab.Transcript
	listeners := []*lab.Process{s.start(s.Gateway, &text, nil, "events"), s.start(s.Gateway, &lines, nil, "events", "--json")}
	s.await("the listeners hear", func() error {
		s.do(s.Clients[0], "--instance", "anna", "initiate", "office")
		s.do(s.Clients[0], "--instance", "anna", "terminate", "*")
		for _, want := range []string{"established     anna@example.org", "child up", "closed          anna@example.org", "deleted by peer"} {
			if !strings.Contains(text.String(), want) {
				return fmt.Errorf("no %q in %s", want, &text)
			}
		}
		if !strings.Contains(lines.String(), `"event":"child_up"`) {
			return errors.New(lines.String())
		}
		return nil
	})
	if err := listeners[0].Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if r := s.end(listeners[0], &text); r.code != 0 {
		t.Errorf("Ctrl-C: exit code %d: %s", r.code, r.out)
	}
	// It ends with the daemon, and hears the answer to its goodbye before.
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "initiate", "office")
	before := len(lines.String())
	s.stop(gw)
	r := s.end(listeners[1], &lines)
	if last := r.out[before:]; r.code != 0 || !strings.Contains(last, `"reason":"deleted"`) || strings.Contains(last, `"event":"unanswered"`) {
		t.Errorf("exit code %d: %s", r.code, last)
	}
	s.stop(client)
	s.detached()
}
