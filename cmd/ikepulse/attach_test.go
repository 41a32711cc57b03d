package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

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
	s.laid("g1")
	s.want(s.Gateway, exitError, []string{"no address is on g1"}, "attach", "g1")
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
	st, _ := s.status(s.NAT)
	ours := fmt.Sprint(st.XDP.Addresses)
	s.want(s.NAT, exitError, []string{"n0 has another XDP program"}, "attach", "lo", "c0", "n0")
	st, _ = s.status(s.NAT)
	if on := st.XDP.Attachments; len(on) != 1 || on[0].Interface != "lo" { // c0 was let go again, lo was not
		t.Errorf("attached: %+v", on)
	}
	if now := fmt.Sprint(st.XDP.Addresses); now != ours {
		t.Errorf("ours are %s now, were %s", now, ours)
	}
	s.want(s.NAT, 0, []string{"lo: detached"}, "detach", "--all")
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
	s.want(s.Gateway, exitError, []string{"the running daemon's maps have room for 1024 tunnels, not 64"}, "attach", "g0", "--capacity", "64")
	s.want(s.Gateway, 0, []string{"g0: attached, native", "ours       198.51.100.1 (as the running daemon has them)", "1,024 tunnels"}, "attach", "g0")
	s.want(s.Gateway, 0, []string{"healthy\n", "keepalive: answer\n"}, "status")
	s.want(s.Gateway, 0, nil, "detach", "g0")
	s.want(s.Gateway, 0, []string{"counted and dropped"}, "attach", "g0", "--keepalive", "absorb", "--answer-interval", "7s")
	s.want(s.Gateway, 0, []string{"keepalive: absorb\n"}, "status")
	if st, _ := s.status(s.Gateway); st.XDP.AnswerIntervalMS < 7000 {
		t.Errorf("the interval is %d ms", st.XDP.AnswerIntervalMS)
	}
	s.stop(gw)
	s.want(s.Gateway, 0, []string{"g0: detached"}, "detach", "g0")
}

// TestFailedStart: what keeps the daemon from running is said, and nothing of
// the attempt is left.
func TestFailedStart(t *testing.T) {
	s := newSite(t)
	s.write("anna.psk", psk)
	for what, c := range map[string]struct{ from, to, says string }{
		"a foreign control socket": {"shards: 2", "control: {socket: /proc/nowhere/x.sock}", "control socket: "},
		"an unknown group":         {"shards: 2", "control: {group: no-such-group}", `control.group: no group "no-such-group" on this host`},
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

// TestOtherNames: an interface may have several.
func TestOtherNames(t *testing.T) {
	const other = "uplink"
	s := newSite(t)
	err := s.Gateway.Do(func() error {
		dev, err := netlink.LinkByName("g0")
		if err != nil {
			return err
		}
		return netlink.LinkAddAltName(dev, other)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.want(s.Gateway, 0, []string{"g0: attached, native", "198.51.100.1 (those of g0)"}, "attach", other)
	s.want(s.Gateway, 0, []string{"g0: detached\n"}, "detach", other)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", strings.Replace(gatewayConfig,
		"addresses: [198.51.100.1]", "addresses: [198.51.100.1], interfaces: ["+other+"]", 1)))
	s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
	s.want(s.Gateway, 0, []string{"g0: detached\n"}, "detach", other)
	s.want(s.Gateway, exitDegraded, []string{"problem    XDP is not attached to g0"}, "status")
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}

// TestNoBPFFS: nothing is pinned silently where it would vanish.
func TestNoBPFFS(t *testing.T) {
	s := newSite(t)
	s.write("anna.psk", psk)
	file := s.write("gateway.yaml", gatewayConfig)
	ends := func(code int, says string, args ...string) {
		t.Helper()
		var out lab.Transcript
		if r := s.end(s.start(s.Gateway, &out, noBPFFSHere, args...), &out); r.code != code || !strings.Contains(r.out, says) {
			t.Errorf("%q: exit code %d: %s", args, r.code, r.out)
		}
	}
	ends(exitError, "no bpffs: pins would not outlive this process; mount one", "attach", "g0")
	ends(exitDegraded, "no bpffs is mounted here", "status")
	ends(0, "no bpffs is mounted here", "detach", "g0")

	var log lab.Transcript
	p := s.start(s.Gateway, &log, noBPFFSHere, "run", "--config", file, "--no-pin")
	s.await("it runs without pins", func() error {
		if r := s.do(s.Gateway, "status"); r.code != 0 || !strings.Contains(r.out, "xdp        g0 native") {
			return errors.New(r.out + log.String())
		}
		return nil
	})
	s.want(s.Gateway, 0, nil, "stats", "--all")
	ends(0, "nothing is pinned: what the running daemon has attached, it takes along", "detach", "g0")
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := s.end(p, &log); r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	// The program went with the daemon, so another may have the interface.
	s.want(s.Gateway, 0, []string{"g0: attached, native"}, "attach", "g0")
	s.want(s.Gateway, 0, nil, "detach", "g0")

	killed := s.run(s.Gateway, "--no-pin", "--config", file)
	_ = killed.Kill() // which is no good end
	s.want(s.Gateway, 0, []string{"nothing is attached"}, "detach", "--all")
	if left, err := os.ReadDir("/run/ikepulse"); err != nil || len(left) > 0 {
		t.Errorf("a killed daemon without pins has left %v (%v)", left, err)
	}
}

// TestNetns: a command enters the namespace and keeps the host's bpffs.
func TestNetns(t *testing.T) {
	s := newSite(t)
	host := s.NAT // a namespace that has no g0
	s.want(host, 0, []string{"g0: attached"}, "--netns", s.Gateway.NetnsPath(), "attach", "g0")
	s.want(s.Gateway, exitDegraded, []string{"xdp        g0 native"}, "status")
	s.want(host, exitError, []string{"serves another network namespace"}, "status")
	s.want(host, exitError, []string{"serves another network namespace", "is gone: rm -r " + pins + "/default"}, "detach", "--all")
	s.want(host, exitDegraded, []string{"xdp        g0 native"}, "status", "--netns", s.Gateway.NetnsPath())
	s.want(host, exitError, []string{"enter /proc/self/ns/mnt: it is no network namespace"}, "--netns", "/proc/self/ns/mnt", "status")
	s.want(host, 0, []string{"g0: detached"}, "detach", "g0", "--netns="+s.Gateway.NetnsPath())
}
