package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what was printed with a file that documents may quote.
func golden(t *testing.T, name string, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
	for _, line := range strings.Split(got, "\n") {
		if strings.TrimRight(line, " ") != line {
			t.Errorf("%s: blanks at the end of %q", path, line)
		}
	}
}

// printed is what f writes.
func printed(t *testing.T, f func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := f(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
func ms(d time.Duration) *int64        { n := d.Milliseconds(); return &n }

const day = 24 * time.Hour

// decoded makes a value of the daemon's own JSON: some of its types cannot be
// named here.
func decoded[T any](t *testing.T, text string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func xdp(attached ...gateway.Attachment) *gateway.XDP {
	return &gateway.XDP{Pins: "/sys/fs/bpf/ikepulse/default", Attachments: attached, Keepalive: "answer",
		AnswerIntervalMS: 10240, Capacity: 65536, LoadedMS: (41 * day).Milliseconds(), SPIs: 49871,
		Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")},
		Counters: []gateway.Counter{
			{Name: "ike_500", Frames: 99742, Verdict: "pass"},
			{Name: "esp_udp_known", Frames: 811990, Verdict: "pass"}, {Name: "esp_udp_moved", Frames: 3, Verdict: "pass"},
			{Name: "esp_udp_unknown", Frames: 10, Verdict: "pass"}, {Name: "esp_unknown", Frames: 4, Verdict: "pass"},
			{Name: "keepalive_answered", Frames: 2476, Verdict: "tx"}, {Name: "keepalive_absorbed", Verdict: "drop"},
			{Name: "keepalive_limited", Frames: 3, Verdict: "drop"}, {Name: "stranger_dropped", Frames: 2, Verdict: "drop"},
		}, Events: 5}
}

var eth0 = gateway.Attachment{Interface: "eth0", Mode: "native", ProgramID: 314, AttachedMS: ms(41 * day)}

func status(t *testing.T, state string, x *gateway.XDP, problems ...string) *gateway.Status {
	return &gateway.Status{Instance: "default", State: state, Problems: problems, XDP: x, Daemon: &gateway.Daemon{
		Version: "0.1.0", PID: 4121, Capacity: 65536, XDPEvents: &gateway.Events{Drift: 3, Stranger: 2},
		Barriers:  gateway.Barriers{Unprotected: "block", Kinds: []string{"routes", "nftables", "XFRM policies"}, Networks: 2},
		Dataplane: gateway.Dataplane{Kind: "userspace", Interface: "ikepulse", Counters: map[string]uint64{"in": 811000, "out": 790214, "icv": 0}},
		Sockets: []gateway.Socket{{Local: addrPort("198.51.100.1:500"), IKE: 99742, Sent: 99740},
			{Local: addrPort("198.51.100.1:4500"), IKE: 99801, ESP: 812007, Sent: 889971}},
		IKE: decoded[ike.Status](t, `{"up_ms": 532800000, "up": 49871, "connecting": 112, "deleting": 3, "taken": 49874, "max": 262144,
			"handshakes": {"half_open": 112, "max": 65536, "per_source": 64, "cookies_from": 1024},
			"lag_max_us": [31250, 8100], "lag_p99_us": [640, 1900],
			"counters": {"established": 50064, "deleted": 141, "dead": 52, "replaced": 0, "auth_failed": 5,
				"probes_sent": 131, "probes_spared": 1529}}`)}}
}

func TestRenderStatus(t *testing.T) {
	down := &gateway.Status{Instance: "default", State: gateway.NotRunning, XDP: xdp(eth0)}
	other := status(t, gateway.Healthy, xdp(eth0))
	other.Instance = "lab"
	surge := status(t, gateway.Healthy, xdp(eth0))
	surge.IKE.Handshakes = decoded[ike.Status](t, `{"handshakes": {"half_open": 4210, "max": 65536, "per_source": 64, "cookies_from": 1024,
		"cookies": true, "waiting": 3966, "waiting_ms": 480, "sources": [{"source": "203.0.113.9", "half_open": 79, "allowed": 80, "turned_away": 12301},
		{"source": "2001:db8:1:2::/64", "half_open": 3, "allowed": 64, "turned_away": 0}]}}`).Handshakes
	for name, n := range map[string]uint64{"cookies_demanded": 18207, "half_open_evicted": 12, "shed_late": 3, "shed_unproven": 40,
		"half_open_source_full": 12301, "bad_public_values": 1, "refusals_delayed": 7} {
		surge.IKE.Counters[name] = n
	}
	refused := status(t, gateway.Healthy, xdp(eth0))
	refused.IKE.Childless = 2
	for name, n := range map[string]uint64{"refused_secret": 1412, "refused_suite": 3, "refused_not_asked": 2, "refused_identity": 0,
		"refused_by_peer_auth": 7} {
		refused.IKE.Counters[name] = n
	}
	left := status(t, gateway.Degraded, nil, "XDP is off: no")
	left.Left = []gateway.Attachment{eth0, {Interface: "eth1", Mode: "generic", ProgramID: 315}}
	gone := gateway.Attachment{Interface: "eth1", Gone: true, Note: "the interface is gone"}
	for name, st := range map[string]*gateway.Status{
		"status-healthy": status(t, gateway.Healthy, xdp(eth0)),
		"status-degraded": status(t, gateway.Degraded, xdp(gone),
			"XDP is not attached to eth0: nothing answers keepalives there; ikepulse attach eth0"),
		"status-left":        left,
		"status-refused":     refused,
		"status-surge":       surge,
		"status-instance":    other,
		"status-not-running": down,
		"status-nothing":     {Instance: "default", State: gateway.NotRunning},
	} {
		golden(t, name, printed(t, func(w io.Writer) error { return renderStatus(w, st) }))
	}
}

// TestStatusKnowsEveryReason: what the program counts of keepalives and ESP is
// in the sums, by whatever name it may come to have.
func TestStatusKnowsEveryReason(t *testing.T) {
	x := xdp(eth0)
	x.Counters = nil
	keepalives, esp := 0, 0
	for _, r := range (maps.Counters{}).Reasons() {
		x.Counters = append(x.Counters, gateway.Counter{Name: r.Name, Frames: 1, Verdict: r.Verdict})
		switch {
		case strings.HasPrefix(r.Name, "keepalive_"), strings.HasPrefix(r.Name, "stranger_"):
			keepalives++
		case strings.Contains(r.Name, "esp_") && r.Name != "esp_short", strings.HasPrefix(r.Name, "ah_") && r.Name != "ah_short":
			esp++
		}
	}
	got := printed(t, func(w io.Writer) error { return renderStatus(w, status(t, gateway.Healthy, x)) })
	for _, want := range []string{fmt.Sprintf("\nkeepalives %d in ", keepalives), fmt.Sprintf("\nesp        %d in ", esp)} {
		if !strings.Contains(got, want) || keepalives < 8 || esp < 12 {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

// saRows are one of each kind, as the daemon and as the pins tell them.
func saRows() []saRow {
	return []saRow{
		{Peer: "anna@example.org", From: addrPort("203.0.113.9:61201"), InSPI: "4a01f3c2", OutSPI: "c77b0e15",
			UpMS: ms(3*time.Hour + 12*time.Minute), IdleMS: ms(64 * time.Second),
			Liveness: ike.Liveness{ProofMS: ms(64 * time.Second), Proof: "esp", Outstanding: true, Tries: 3, MaxTries: 5}},
		{Peer: "dora@example.org", From: addrPort("198.18.7.77:4500"), InSPI: "1d90be02", OutSPI: "e0a47f16",
			UpMS: ms(100 * time.Minute), IdleMS: ms(0),
			Liveness: ike.Liveness{ProofMS: ms(400 * time.Millisecond), Proof: "esp", NextMS: ms(30 * time.Second)}},
		{Peer: "berlin.example.org", From: addrPort("203.0.113.7:4500"), InSPI: "09bc1177", OutSPI: "88d1a004",
			UpMS: ms(6*day + 2*time.Hour), IdleMS: ms(0),
			Liveness: ike.Liveness{ProofMS: ms(15 * time.Second), Proof: "ike", Outstanding: true, Tries: 1, MaxTries: 5, Alarm: "unauthenticated"}},
		{Peer: "\x1b[2Jevil\n@example.org", From: addrPort("[2001:db8::9]:4500"), InSPI: "00c00001", OutSPI: "00000100", UpMS: ms(11 * time.Minute)},
		{From: addrPort("198.18.4.20:19004"), InSPI: "5e00aa31", IdleMS: ms(4 * time.Second), Liveness: ike.Liveness{Alarm: "moved"}},
	}
}

func TestRenderSAs(t *testing.T) {
	for name, c := range map[string]struct {
		terminal bool
		sort     string
		limit    int
		alarm    bool
	}{
		"sas": {terminal: true, sort: "peer"}, "sas-pipe": {sort: "peer"},
		"sas-proof": {terminal: true, sort: "proof", limit: 3}, "sas-idle": {sort: "idle"}, "sas-up": {sort: "up", limit: 99},
		"sas-alarm": {sort: "peer", alarm: true},
	} {
		rows := pick(saRows(), c.sort, c.limit, c.alarm)
		golden(t, name, printed(t, func(w io.Writer) error { return renderSAs(w, c.terminal, rows) }))
	}
}

func TestRenderPeers(t *testing.T) {
	rows := []peerRow{
		{Peer: "anna@example.org", Connection: "roadwarriors", State: "established", From: addrPort("203.0.113.9:61201"), PeerNATted: true,
			UpMS: ms(3*time.Hour + 12*time.Minute), keepalives: &gateway.Keepalives{Received: 1152, Answered: 576, ReceivedMS: ms(4 * time.Second)},
			Liveness: ike.Liveness{ProofMS: ms(64 * time.Second), Proof: "esp", Outstanding: true, Tries: 3, MaxTries: 5}},
		{Peer: "berlin.example.org", Connection: "berlin", State: "established", From: addrPort("203.0.113.7:4500"), LocalNATted: true,
			UpMS: ms(41 * day), Liveness: ike.Liveness{ProofMS: ms(0), Proof: "ike", NextMS: ms(9 * time.Second)}},
		{Peer: "carl@example.org", Connection: "roadwarriors", State: "no child", From: addrPort("203.0.113.30:4500"), UpMS: ms(time.Minute),
			Liveness: ike.Liveness{ProofMS: ms(time.Minute), Proof: "ike", NextMS: ms(time.Second)}},
		{State: "init sent", Connection: "paris", From: addrPort("203.0.113.8:500"), UpMS: ms(9 * time.Second),
			Liveness: ike.Liveness{Outstanding: true, Tries: 1, MaxTries: 5, NextMS: ms(time.Second)}},
		{State: "half-open", From: addrPort("198.18.4.20:19004"), PeerNATted: true, LocalNATted: true, UpMS: ms(time.Second)},
		{From: addrPort("198.18.7.77:4500"), PeerNATted: true, keepalives: &gateway.Keepalives{Received: 3}},
	}
	golden(t, "peers", printed(t, func(w io.Writer) error { return renderPeers(w, true, rows) }))
	golden(t, "peers-pipe", printed(t, func(w io.Writer) error { return renderPeers(w, false, rows) }))
}

func TestRenderStats(t *testing.T) {
	st := status(t, gateway.Healthy, xdp(eth0))
	golden(t, "stats", printed(t, func(w io.Writer) error { return renderStats(w, true, statsOf(st), false) }))
	golden(t, "stats-all", printed(t, func(w io.Writer) error { return renderStats(w, false, statsOf(st), true) }))
	golden(t, "stats-json", printed(t, func(w io.Writer) error { return printJSON(w, statsOf(st)[:2]) }))
}

func TestRenderEvents(t *testing.T) {
	here := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = here })
	at := `{"time": "2026-03-01T13:58:31Z", "shard": 0, "seq": 1, "role": "responder", "local": "198.51.100.1:4500",
		"remote": "203.0.113.9:61201", "local_natted": false, "peer_natted": true, "spi": "00a1b2c3d4e5f607", `
	var b strings.Builder
	for _, rest := range []string{
		`"event": "connecting"}`,
		`"event": "established", "peer": "anna@example.org", "connection": "rw", "suite": "aes256gcm16-prfsha384-x25519"}`,
		`"event": "child_up", "peer": "anna@example.org", "connection": "rw", "child": {"spi_in": "4a01f3c2", "spi_out": "c77b0e15",
			"suite": "aes256gcm16-esn", "local_ts": ["10.0.0.0/8"], "remote_ts": ["10.99.0.1/32"]}}`,
		`"event": "drift", "peer": "anna@example.org", "connection": "rw", "from": "198.18.4.20:19004"}`,
		`"event": "retransmit", "peer": "anna@example.org", "connection": "rw", "try": 3}`,
		`"event": "closed", "peer": "anna@example.org", "connection": "rw", "reason": "dead", "silent_ms": 195000}`,
		`"event": "refused", "connection": "rw", "notify": "AUTHENTICATION_FAILED", "refusal": {"by": "us", "rule": "secret", "remote": "203.0.113.9:61201",
			"connection": "rw", "claimed": "anna@example.org", "advice": "compare the two keys"}}`,
		`"event": "refused", "connection": "berlin", "notify": "NO_PROPOSAL_CHOSEN", "refusal": {"by": "peer", "notify": "NO_PROPOSAL_CHOSEN",
			"remote": "203.0.113.7:500", "connection": "berlin", "unauthenticated": true, "ours": ["aes256gcm16-prfsha384-x25519\u001b[2J"]}}`,
		`"event": "closed", "peer": "evil\n\u001b[2J", "reason": "refused", "notify": "NO_PROPOSAL_CHOSEN", "error": "a\nb"}`,
	} {
		b.WriteString(printed(t, func(w io.Writer) error { return renderEvent(w, decoded[ike.Event](t, at+rest)) }))
	}
	golden(t, "events", b.String())
}

func TestRenderAttached(t *testing.T) {
	native := loader.Attachment{Interface: "eth0", Mode: "native", ProgramID: 314, LinkID: 7}
	generic := loader.Attachment{Interface: "eth1", Mode: "generic", ProgramID: 314, LinkID: 8,
		Note: "not native: the driver cannot, or not with an MTU of 9000 and its present LRO and queues"}
	vlan := native
	vlan.KeepsTags = true
	absorb := xdp()
	absorb.Keepalive, absorb.Capacity = "absorb", 1
	passing := xdp()
	passing.Keepalive = "pass"
	for name, a := range map[string]attached{
		"attach":         {XDP: xdp(), done: []loader.Attachment{native}, from: "those of eth0"},
		"attach-again":   {XDP: xdp(), done: []loader.Attachment{native}, before: []loader.Attachment{native}, from: "those of eth0"},
		"attach-generic": {XDP: absorb, done: []loader.Attachment{native, generic}, from: "listen.addresses of ikepulse.yaml"},
		"attach-vlan":    {XDP: xdp(), done: []loader.Attachment{vlan}, from: "those of eth0"},
		"attach-pass":    {XDP: passing, done: []loader.Attachment{native}, from: "as the running daemon has them"},
	} {
		golden(t, name, printed(t, func(w io.Writer) error { return renderAttached(w, a) }))
	}
}

// writeConfig puts a configuration and its secrets into a folder of its own,
// and makes that the current one.
func writeConfig(t *testing.T, text string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{"ikepulse.yaml": text, "a.psk": "a secret of more than twenty bytes\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheck(t *testing.T) {
	gold := func(name, config string, host []gateway.Finding) {
		t.Run(name, func(t *testing.T) {
			folder, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			writeConfig(t, config)
			got := checkText(t, host)
			t.Chdir(folder)
			golden(t, name, got)
		})
	}
	gold("check-good", goodConfig, nil)
	gold("check-good-host", goodConfig, []gateway.Finding{{Name: "kernel", Text: "has what XDP needs"},
		{Name: "bpffs", Text: "/sys/fs/bpf is none: mount -t bpf bpf /sys/fs/bpf, or run --no-pin"}})
	gold("check-no-dpd", strings.ReplaceAll(goodConfig, "mode: idle", "mode: off"), nil)
	gold("check-mtu", strings.NewReplacer("mode: idle, delay: 20s}", "mode: idle, delay: 20s}, mtu: 1180",
		"    remote: {auth: psk, id: berlin", "    mtu: 8900\n    remote: {auth: psk, id: berlin").Replace(goodConfig), nil)
	gold("check-names", strings.NewReplacer("[203.0.113.7]", "[berlin.example.org, 203.0.113.7, backup.example.org]",
		"id: \"*@example.org\"", "id: anna.example.org, addresses: [anna.example.org]", "    pools: [office]\n", "",
		"10.0.0.0/8]}}", "10.0.0.0/8], remote_ts: [10.21.0.0/16]}}",
		"  - {id: vpn.example.org", "  - {id: anna.example.org, psk_file: a.psk}\n  - {id: vpn.example.org").Replace(goodConfig), nil)
	gold("check-bad", strings.NewReplacer("delay: 20s", "dely: 20", "a.psk", "b.psk", "answer", "reply").Replace(goodConfig), nil)
}

// checkText is what check prints, with a host of the test's making.
func checkText(t *testing.T, host []gateway.Finding) string {
	cfg, problems := config.Check("ikepulse.yaml", gateway.Checks)
	if problems != nil {
		code, out, _ := run(t, "check", "--config", "ikepulse.yaml")
		if code != exitError {
			t.Errorf("exit code %d", code)
		}
		return out
	}
	c := checked{file: "ikepulse.yaml", cfg: cfg, memory: gateway.MemoryFor(cfg.XDP.Capacity), probes: probeRate(cfg), host: host}
	return printed(t, func(w io.Writer) error { return renderChecked(w, c) })
}

const goodConfig = `listen: {addresses: [198.51.100.1, "2001:db8::1"]}
shards: 2
xdp: {keepalive: answer, capacity: 65536}
defaults: {dpd: {mode: idle, delay: 20s}}
connections:
  roadwarriors:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: "*@example.org"}
    pools: [office]
    children: {net: {local_ts: [10.0.0.0/8]}}
  berlin:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: berlin.example.org, addresses: [203.0.113.7]}
    dpd: {mode: idle, max_suppress: 5m}
    children: {lan: {local_ts: [10.0.0.0/8], remote_ts: [10.20.0.0/16], start_action: start}}
pools:
  office: {addresses: 10.99.0.0/16}
secrets:
  - {id: berlin.example.org, psk_file: a.psk}
  - {id: vpn.example.org, psk_file: a.psk}
`
