package gateway

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/records"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/require"
)

const sample = `listen: {addresses: [198.51.100.1, "2001:db8::1"]}
xdp: {capacity: 1000, keepalive: absorb, answer_interval: 7s, stranger: pass}
shards: 3
connections:
  rw:
    local: {auth: psk, id: vpn.example.org, addresses: [198.51.100.1]}
    remote: {auth: psk, id: "*@example.org"}
    pools: [office]
    proposals: [aes128gcm16-prfsha256-x25519]
    nat_keepalive: 9s
    mtu: 1180
    unique: keep
    max_sas: 3
    max_leases: 2
    dpd: {mode: on-demand, delay: 11s, max_suppress: 3m, retransmit: {timeout: 2s, base: 1.5, tries: 7}}
    children:
      net: {local_ts: ["10.0.0.0/8[6/443]"], remote_ts: [dynamic], esp_proposals: [aes256gcm16-esn]}
  berlin:
    local: {auth: psk, id: "keyid:#ff00"}
    remote: {auth: psk, id: berlin.example.org, addresses: [vpn.example.org, 203.0.113.7]}
    vips: ["0.0.0.0"]
    children: {lan: {local_ts: [10.0.0.0/8], remote_ts: [10.20.0.0/16], start_action: start}}
pools:
  office: {addresses: 10.99.0.0/16, dns: [10.0.0.53], domains: [corp.example.org]}
secrets:
  - {id: "%any", psk_file: a.psk}
  - {id: "*.example.org", psk_file: a.psk}
  - {id: "*.b.example.org", psk_file: a.psk}
  - {id: "*@example.org", psk_file: a.psk}
`

func load(t *testing.T) *config.Config {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"a.yaml": sample, "a.psk": "a secret of more than twenty bytes\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, problems := config.Load("a.yaml", Checks)
	if problems != nil {
		t.Fatal(problems)
	}
	return cfg
}

// TestConfig: everything that the file says arrives.
func TestConfig(t *testing.T) {
	cfg := load(t)
	got := ikeConfig(cfg)
	berlin := cfg.Connections[1]
	want := ike.Config{Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")},
		Shards: 3, Capacity: 4096, ForceEncap: true,
		Connections: []ike.Connection{
			{Name: "rw", LocalID: "vpn.example.org", RemoteID: "*@example.org",
				LocalAddresses: []netip.Addr{netip.MustParseAddr("198.51.100.1")}, Pools: []string{"office"},
				Proposals: []string{"aes128gcm16-prfsha256-x25519"}, ESPProposals: []string{"aes256gcm16-esn"}, NATKeepalive: 9 * time.Second, MTU: 1180, Unique: "keep", MaxSAs: 3, MaxLeases: 2,
				DPD: ike.DPD{Mode: "on-demand", Delay: 11 * time.Second, MaxSuppress: 3 * time.Minute, Timeout: 2 * time.Second, Base: 1.5, Tries: 7},
				Child: ike.Child{Name: "net", RemoteTS: []ike.Selector{{Dynamic: true, ToPort: 65535}},
					LocalTS: []ike.Selector{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Protocol: 6, FromPort: 443, ToPort: 443}}}},
			{Name: "berlin", LocalID: "keyid:#ff00", RemoteID: "berlin.example.org",
				Hosts: []ike.Host{{Name: "vpn.example.org"}, {Addr: netip.MustParseAddr("203.0.113.7")}}, VirtualIPs: []netip.Addr{netip.IPv4Unspecified()},
				Proposals: config.DefaultProposals, ESPProposals: config.DefaultESPProposals, NATKeepalive: 20 * time.Second,
				Unique: "no", MaxSAs: ike.DefaultMaxSAs, MaxLeases: ike.DefaultMaxLeases,
				DPD: ike.DPD{Mode: "idle", Delay: 30 * time.Second, MaxSuppress: 10 * time.Minute, Timeout: 4 * time.Second, Base: 1.8, Tries: 5},
				Child: ike.Child{Name: "lan", LocalTS: []ike.Selector{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), ToPort: 65535}},
					RemoteTS: []ike.Selector{{Prefix: netip.MustParsePrefix("10.20.0.0/16"), ToPort: 65535}}},
				Start: berlin.Children[0].StartAction == "start"},
		},
		Pools: []ike.Pool{{Name: "office", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}, DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53")}, Domains: []string{"corp.example.org"}}},
	}
	for _, id := range []string{"%any", "*.example.org", "*.b.example.org", "*@example.org"} {
		want.Secrets = append(want.Secrets, ike.Secret{ID: id, PSK: []byte("a secret of more than twenty bytes")})
	}
	for i := range got.Connections {
		if !reflect.DeepEqual(got.Connections[i], want.Connections[i]) {
			t.Errorf("connection\n got %+v\nwant %+v", got.Connections[i], want.Connections[i])
		}
	}
	got.Connections, want.Connections = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	for _, c := range ikeConfig(cfg).Connections {
		if _, err := ike.ParseIdentity(c.LocalID); err != nil {
			t.Error(err)
		}
		if _, err := ike.ParsePattern(c.RemoteID); err != nil {
			t.Error(err)
		}
	}
	o := LoaderOptions("lab", cfg)
	if o.Instance != "lab" || o.Capacity != 1000 || o.Keepalive != "absorb" || o.AnswerInterval != 7*time.Second || !o.StrangerPass {
		t.Errorf("%+v", o)
	}
}

func TestProblems(t *testing.T) {
	well := func() *Status {
		st := &Status{Daemon: &Daemon{}, XDP: &XDP{Attachments: []Attachment{{Interface: "eth0"}, {Interface: "eth1"}}}}
		st.IKE.Up, st.IKE.Taken, st.IKE.MaxSAs, st.Capacity = 9, 9, 40, 10
		st.IKE.Handshakes.HalfOpen, st.IKE.Handshakes.Max = 4, 5
		st.IKE.Counters = map[string]uint64{}
		return st
	}
	d := &daemon{Options: Options{Config: &config.Config{}}, interfaces: []string{"eth0", "eth1"}, supply: &supply{}}
	if p := d.problems(well()); len(p) > 0 || p == nil {
		t.Errorf("well, and %q", p)
	}
	clock, ring := errors.New("out of order"), errors.New("torn")
	for says, spoil := range map[string]func(*Status){
		"XDP is not attached to eth1: nothing answers keepalives there; ikepulse attach eth1": func(st *Status) { st.XDP.Attachments = st.XDP.Attachments[:1] },
		"XDP is not on eth0: it is gone; it is attached again": func(st *Status) {
			st.XDP.Attachments[0].Gone, st.XDP.Attachments[0].Note = true, "it is gone"
		},
		"XDP is off: no; way; no keepalive is answered":                                                        func(st *Status) { st.XDP, d.noXDP = nil, errors.New("no\nway") },
		"a tunnel was refused 1s ago: every inbound SPI":                                                       func(*Status) { d.supply.refused.Store(bootTime() - int64(time.Second)) },
		"all 40 tunnels that there can be with xdp.capacity 10":                                                func(st *Status) { st.IKE.Taken = 40 },
		"all 5 handshakes that there may be at once are under way: who comes now has no answer; half_open.max": func(st *Status) { st.IKE.Handshakes.HalfOpen = 5 },
		"2 tunnels are unknown to XDP":                                                                         func(st *Status) { st.IKE.Up, st.Untracked = 22, 2 },
		"11 tunnels are there, and xdp.capacity is 10":                                                         func(st *Status) { st.IKE.Up = 11 },
		"3 errors of the program itself":                                                                       func(st *Status) { st.IKE.Counters["panics"], st.IKE.Counters["key_exchange_panics"] = 1, 2 },
		"cannot be read: out of order":                                                                         func(*Status) { d.clockError.Store(&clock) },
		"what XDP tells of cannot be read: torn; a peer whose address has changed": func(*Status) {
			d.events = &events{}
			d.events.failed.Store(&ring)
		},
	} {
		st := well()
		spoil(st)
		if p := d.problems(st); len(p) != 1 || !strings.Contains(p[0], says) {
			t.Errorf("want %q, got %q", says, p)
		}
		d.clockError.Store(nil)
		d.supply.refused.Store(0)
		d.events = nil
	}
	d.supply.refused.Store(bootTime() - int64(slotsRest) - int64(time.Second))
	if p := d.problems(well()); len(p) > 0 {
		t.Errorf("a slot was refused long ago, and %q", p)
	}
}

// TestInterfaceProblems: an interface has one reason, and it is the nearest.
func TestInterfaceProblems(t *testing.T) {
	x := &XDP{Attachments: []Attachment{{Interface: "eth0"}, {Interface: "eth1", Gone: true, Note: "gone"}, {Interface: "eth2", Gone: true, Note: "gone"}}}
	got := interfaceProblems(x, []string{"eth0", "eth1", "eth2", "eth3", "eth4"}, map[string]error{"eth2": errors.New("taken"), "eth3": errors.New("foreign")})
	want := []string{"XDP is not on eth2: taken", "XDP is not on eth3: foreign",
		"XDP is not on eth1: gone; it is attached again as soon as it can be",
		"XDP is not attached to eth4: nothing answers keepalives there; ikepulse attach eth4"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRecalibrate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+30*time.Second)
		defer cancel()
		began := time.Now()
		var slept atomic.Bool
		var at []time.Duration
		time.AfterFunc(5*time.Minute+10*time.Second+1, func() { slept.Store(true) })
		recalibrate(ctx, slept.Load, func() {
			slept.Store(false)
			at = append(at, time.Since(began))
		})
		want := []time.Duration{1 * time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute, 5 * time.Minute}
		for m := range 6 { // from the wake-up on
			want = append(want, 5*time.Minute+11*time.Second+time.Duration(m)*time.Minute)
		}
		if !reflect.DeepEqual(at, want) {
			t.Errorf("calibrated at %v, want %v", at, want)
		}
	})
}

// TestMemory: the sum is that of the maps as the kernel makes them, but for a
// twentieth.
func TestMemory(t *testing.T) {
	require.Have(t, "root", "bpf")
	for _, capacity := range []int{1000, 65536} {
		spec, err := maps.Spec(capacity)
		if err != nil {
			t.Fatal(err)
		}
		var charged int64
		for name, s := range spec.Maps {
			if strings.HasPrefix(name, ".") {
				continue // the program's constants
			}
			made, err := ebpf.NewMap(s)
			if err != nil {
				t.Fatal(err)
			}
			info, err := made.Info()
			if err != nil {
				t.Fatal(err)
			}
			bytes, told := info.Memlock()
			if charged += int64(bytes); !told {
				t.Fatalf("%s: the kernel does not tell its size", name)
			}
			if err := made.Close(); err != nil {
				t.Fatal(err)
			}
		}
		m := MemoryFor(capacity)
		if m.Records != int64(capacity)*records.Size || m.Maps < charged*19/20 || m.Maps > charged*21/20 {
			t.Errorf("for %d: %+v, but the kernel has charged %d", capacity, m, charged)
		}
	}
}
