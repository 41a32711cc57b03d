package test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// crowdConfig is a gateway that many call: at an address of its link, and at one
// that is beyond it.
const crowdConfig = `
listen: {addresses: [198.51.100.1, 203.0.113.1, "2001:db8::1"], interfaces: [g0]}
xdp: {capacity: 1024}
log: {level: debug, format: json}
connections:
  crowd:
    local: {auth: psk, id: gw.example}
    remote: {auth: psk, id: "*@example.org"}
    esp_proposals: [aes256gcm16-esn-noesn]
    dpd: {mode: off}
    pools: [office]
    children: {net: {local_ts: [10.99.0.1/32]}}
pools:
  office: {addresses: 10.98.0.0/16}
secrets:
  - {id: "*@example.org", psk_file: psk}
`

// crowd is a gateway on a link, and the host where all its clients are.
type crowd struct {
	*testing.T
	gw   *daemon
	host *lab.Namespace
	dir  string // of the clients' secrets
}

// newCrowd builds it. The clients' addresses are local to their host, and routed
// there by the gateway.
func newCrowd(t *testing.T) *crowd {
	t.Helper()
	require.Have(t, "root", "netns", "bpf", "tun")
	if !isolated {
		t.Fatal("these tests are not in namespaces of their own")
	}
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	gateway, err := l.Namespace("gateway")
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{T: t, dir: folder(t, map[string]string{"psk": psk, "other": "another secret of twenty bytes"})}
	if c.host, err = l.Namespace("crowd"); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	prefix := netip.MustParsePrefix
	prefixes := func(ps ...string) (out []netip.Prefix) {
		for _, p := range ps {
			out = append(out, prefix(p))
		}
		return out
	}
	// Without an address of the link nobody is looked for on it in the name of
	// one that only a route makes local.
	must(lab.Connect(
		lab.End{Namespace: gateway, Name: "g0", Addresses: prefixes("198.51.100.1/24", "198.51.100.9/24", "2001:db8::1/64", "fe80::1/64")},
		lab.End{Namespace: c.host, Name: "c0", Addresses: prefixes("198.51.100.2/24", "2001:db8::2/64", "fe80::2/64")}))
	must(gateway.Address("lo", prefix("203.0.113.1/32")))
	must(c.host.Route(prefix("203.0.113.0/24"), netip.MustParseAddr("198.51.100.1")))
	for crowded, via := range map[string]string{"10.8.0.0/16": "198.51.100.2", "2001:db8:8::/64": "2001:db8::2"} {
		must(gateway.Route(prefix(crowded), netip.MustParseAddr(via)))
		must(c.host.Own(prefix(crowded)))
	}
	c.gw = start(t, gateway, crowdConfig, map[string]string{"psk": psk})
	return c
}

// call starts a load test with a secret of the folder.
func (c *crowd) call(secret string, args ...string) (*lab.Process, *lab.Transcript) {
	c.Helper()
	path, err := product()
	if err != nil {
		c.Fatal(err)
	}
	out := new(lab.Transcript)
	p, err := c.host.Start(lab.Command{Path: path, Output: out,
		Args: append([]string{"loadtest", "--json", "--psk-file", filepath.Join(c.dir, secret)}, args...)})
	if err != nil {
		c.Fatal(err)
	}
	return p, out
}

// crowdReport is what the tests read of a load test's JSON.
type crowdReport struct {
	Peers      int `json:"peers"`
	Up         int `json:"up"`
	Refused    int `json:"refused"`
	Unfinished int `json:"unfinished"`
	NotCalled  int `json:"not_called"`
	Refusals   []struct {
		Reason string `json:"reason"`
		Count  int    `json:"count"`
	} `json:"refusals"`
	Complaints []struct {
		Reason string `json:"reason"`
	} `json:"complaints"`
	Retransmissions uint64 `json:"retransmissions"`
	HoldMS          int64  `json:"hold_ms"`
	UpAfterHold     int    `json:"up_after_hold"`
}

// ended waits for a load test's end; what it says on stderr comes behind its JSON.
func (c *crowd) ended(p *lab.Process, out *lab.Transcript, code int) (r crowdReport) {
	c.Helper()
	err := p.Wait()
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else if err != nil {
		c.Fatal(err)
	}
	if got != code {
		c.Fatalf("exit code %d, want %d:\n%s", got, code, out)
	}
	if code != exitUsage {
		if err := json.NewDecoder(strings.NewReader(out.String())).Decode(&r); err != nil {
			c.Fatalf("%v:\n%s", err, out)
		}
	}
	return r
}

// exitUsage is the exit code of a command line that cannot be meant.
const exitUsage = 2

// gone waits until the gateway has none of the tunnels that it has had.
func (c *crowd) gone() {
	c.Helper()
	await(c.T, "the gateway has no tunnel", func() bool {
		st := c.gw.status().IKE
		return st.Up+st.Connecting+st.Deleting+st.Handshakes.HalfOpen == 0
	})
	if n := c.gw.status().IKE.Counters; n["deleted"] != n["established"] {
		c.Errorf("of %d tunnels %d were deleted", n["established"], n["deleted"])
	}
}

// TestLoadtest: two hundred clients of as many addresses have tunnels, as the
// gateway sees it, and take them down again.
func TestLoadtest(t *testing.T) {
	for _, tt := range []struct{ name, gateway, from string }{
		{"IPv4", "198.51.100.1", "10.8.0.0/24"},
		{"IPv6", "2001:db8::1", "2001:db8:8::/64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const peers = 200
			c := newCrowd(t)
			p, out := c.call("psk", tt.gateway, "--peers", fmt.Sprint(peers), "--from", tt.from, "--hold", "10m",
				"--remote-ts", "10.99.0.0/16", "--gateway-id", "gw.example")
			await(t, "all are up", func() bool { return c.gw.status().IKE.Up == peers })
			within := netip.MustParsePrefix(tt.from)
			names, addresses := map[string]bool{}, map[netip.Addr]bool{}
			for _, one := range c.gw.peers() {
				names[one.Identity], addresses[one.Remote.Addr()] = true, true
				if !within.Contains(one.Remote.Addr()) || !one.PeerNATted || one.Child == nil || one.Child.RemoteTS[0] == "" {
					t.Fatalf("%+v", one)
				}
			}
			if len(names) != peers || len(addresses) != peers || !names["loadtest-0@example.org"] || !names["loadtest-199@example.org"] {
				t.Errorf("%d names at %d addresses", len(names), len(addresses))
			}
			if n := c.gw.status().IKE.Leases["office"]; n != peers {
				t.Errorf("%d have a virtual address", n)
			}
			c.gw.must("terminate", "loadtest-7@example.org")
			await(t, "one has gone", func() bool { return c.gw.status().IKE.Up == peers-1 })
			if err := p.Signal(unix.SIGINT); err != nil { // which ends the hold
				t.Fatal(err)
			}
			r := c.ended(p, out, 0)
			if r.Up != peers || r.Peers != peers || r.Refused+r.Unfinished+r.NotCalled != 0 || r.HoldMS == 0 || r.UpAfterHold != peers-1 {
				t.Errorf("%+v", r)
			}
			c.gone()
		})
	}
}

// TestLoadtestRefused: what the gateway will not have is said by its name, and
// nobody is sent anything again.
func TestLoadtestRefused(t *testing.T) {
	const peers = 40
	c := newCrowd(t)
	for _, tt := range []struct{ secret, args, reason string }{
		{"other", "", "AUTHENTICATION_FAILED"},
		{"psk", "--timeout 1s --proposal aes256-sha512-ecp384", "NO_PROPOSAL_CHOSEN"},
		{"psk", "--esp-proposal aes256-sha256", "no child SA: NO_PROPOSAL_CHOSEN"},
		{"psk", "--remote-ts 10.100.0.0/16", "no child SA: TS_UNACCEPTABLE"},
		{"psk", "--gateway-id *@other.example", "the gateway's identity or secret is another"},
	} {
		p, out := c.call(tt.secret, append([]string{"198.51.100.1", "--peers", fmt.Sprint(peers), "--from", "10.8.0.0/24"}, strings.Fields(tt.args)...)...)
		r := c.ended(p, out, 1)
		if r.Up != 0 || r.Refused != peers || len(r.Refusals) != 1 || r.Refusals[0].Reason != tt.reason || r.Refusals[0].Count != peers || r.Retransmissions != 0 {
			t.Errorf("%s: %+v", tt.reason, r)
		}
		if !strings.HasSuffix(out.String(), "ikepulse: 40 of 40 peers not up\n") {
			t.Errorf("it says:\n%s", out)
		}
		if n := c.gw.status().IKE.Counters; tt.secret == "other" && (n["auth_failed"] != peers || n["established"] != 0) {
			t.Errorf("at the gateway: %v", n)
		}
	}
}

// TestLoadtestUnfinished: who does not wait for the end learns what the gateway
// has said so far.
func TestLoadtestUnfinished(t *testing.T) {
	const peers = 20
	c := newCrowd(t)
	all := tap(t, c.host, "c0", nil)
	p, out := c.call("psk", "198.51.100.1", "--peers", fmt.Sprint(peers), "--from", "10.8.0.0/24", "--proposal", "aes256-sha512-ecp384")
	await(t, "all are answered", func() bool { return len(messages(all, true, saInit, true)) >= peers })
	if err := p.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if r := c.ended(p, out, 1); r.Unfinished != peers || r.Refused != 0 || len(r.Complaints) != 1 || r.Complaints[0].Reason != "NO_PROPOSAL_CHOSEN" {
		t.Errorf("%+v", r)
	}
}

// TestLoadtestUnanswered: at an address where no gateway is, sixteen have called
// and no more, whatever was wanted.
func TestLoadtestUnanswered(t *testing.T) {
	c := newCrowd(t)
	all := tap(t, c.host, "c0", nil)
	p, out := c.call("psk", "198.51.100.9", "--peers", "1000", "--from", "10.8.0.0/16")
	r := c.ended(p, out, 1)
	if r.Up != 0 || r.Refused != 16 || r.NotCalled != 984 || r.Refusals[0].Reason != "no answer" {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(out.String(), "198.51.100.9 has answered none of the first 16 peers") {
		t.Errorf("it says:\n%s", out)
	}
	frames, err := all.Stop()
	if err != nil {
		t.Fatal(err)
	}
	callers := map[uint64]bool{}
	for _, f := range frames {
		if m, ok := ikeMessage(f); ok {
			callers[binary.BigEndian.Uint64(m.data)] = true
		}
	}
	if len(callers) != 16 {
		t.Errorf("%d have called", len(callers))
	}
}

// TestLoadtestBeyondTheLink: a gateway that is behind a router is called only by
// whoever says that it is his.
func TestLoadtestBeyondTheLink(t *testing.T) {
	c := newCrowd(t)
	all := tap(t, c.host, "c0", nil)
	p, out := c.call("psk", "203.0.113.1", "--peers", "3")
	c.ended(p, out, exitUsage)
	if want := "ikepulse: 203.0.113.1 is on no link of this host: the way leads by the gateway 198.51.100.1; --i-own-this-gateway says"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("it says:\n%s", out)
	}
	if n := len(messages(all, false, saInit, false)); n != 0 {
		t.Errorf("%d have called", n)
	}
	p, out = c.call("psk", "203.0.113.1", "--peers", "3", "--i-own-this-gateway", "--remote-ts", "10.99.0.0/16")
	if r := c.ended(p, out, 0); r.Up != 3 {
		t.Errorf("%+v", r)
	}
	n, called := c.gw.status().IKE.Counters["established"], len(messages(all, false, saInit, false))
	if n != 3 || called < 3 {
		t.Errorf("%d tunnels at the gateway, %d first messages", n, called)
	}
	c.gone()
}

// TestLoadtestInterrupted: who interrupts it is told what was reached, and the
// gateway is rid of it.
func TestLoadtestInterrupted(t *testing.T) {
	const peers = 5000
	c := newCrowd(t)
	p, out := c.call("psk", "198.51.100.1", "--peers", fmt.Sprint(peers), "--rate", "20", "--from", "10.8.0.0/16")
	await(t, "some are up", func() bool { return c.gw.status().IKE.Up >= 30 })
	if err := p.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	r := c.ended(p, out, 1)
	if r.Up < 30 || r.NotCalled < peers/2 || r.Up+r.Refused+r.Unfinished+r.NotCalled != peers || r.Refused != 0 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(out.String(), fmt.Sprintf("ikepulse: interrupted: %d of 5,000 peers up", r.Up)) {
		t.Errorf("it says:\n%s", out)
	}
	c.gone()
}
