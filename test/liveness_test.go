package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab/charon"
)

// shortDPD asks after 2 s of silence, and gives up after four unanswered
// requests.
const shortDPD = "delay: 2s, retransmit: {timeout: 300ms, base: 1, tries: 3}"

// requests is how often shortDPD sends a request that nobody answers.
const requests = 1 + 3

// TestStrongSwanProbes: who has just proved that he lives is not asked; who is
// silent is, and answers.
func TestStrongSwanProbes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{dpd: shortDPD})
	all := s.uplink(nil)
	client := s.client(0, "")
	initiate(t, client, "net")
	sa, _ := only(t, client)

	// Three delays and more, with a sign of life each second.
	ping(t, s.net.Clients[0], vipOf(t, sa.LocalVIPs), inner, 8, time.Second)
	if ids, _ := probes(t, all); len(ids) != 0 {
		t.Errorf("while packets came, the requests %d went out", ids)
	}
	if st := s.gw.status(); st.IKE.Counters["probes_sent"] != 0 || st.IKE.Counters["probes_spared"] < 3 {
		t.Errorf("counters: %v", st.IKE.Counters)
	}
	if p := s.gw.peer(); p.Child.Proof != "esp" {
		t.Errorf("the last proof of life is %q", p.Child.Proof)
	}

	await(t, "two requests after the traffic has ended", func() bool { ids, _ := probes(t, all); return len(ids) >= 2 })
	await(t, "both are answered", func() bool { return len(messages(all, false, informational, true)) >= 2 })
	ids, sent := probes(t, all)
	for i, m := range messages(all, false, informational, true)[:2] {
		if m.id != ids[i] || sent[m.id] != 1 {
			t.Errorf("answer %d is to request %d, sent %d times", i, m.id, sent[m.id])
		}
	}
	if p := s.gw.peer(); p.Child.Proof != "ike" {
		t.Errorf("after its answers the last proof of life is %q", p.Child.Proof)
	}
	if told := len(s.gw.logged("probe answered")); told < 2 {
		t.Errorf("our log tells of %d answers", told)
	}
	if heard := strings.Count(client.Log(), "parsed INFORMATIONAL request"); heard < 2 {
		t.Errorf("strongSwan has heard of %d requests", heard)
	}
}

// TestStrongSwanAsks: what strongSwan asks is answered, each request once.
func TestStrongSwanAsks(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	all := s.uplink(nil)
	client := s.client(0, "", peerConfig{more: "dpd_delay = 1s"})
	initiate(t, client, "net")
	await(t, "three answers", func() bool { return len(messages(all, true, informational, true)) >= 3 })
	asked, answers := messages(all, false, informational, false), messages(all, true, informational, true)
	for i := range 3 {
		if asked[i].id != answers[i].id || asked[i].from != answers[i].to || len(answers[i].data) > len(asked[i].data) {
			t.Errorf("request %+v, answer %+v", asked[i], answers[i])
		}
	}
	if strings.Contains(client.Log(), "retransmit ") {
		t.Error("strongSwan had to ask again")
	}
	if ids, _ := probes(t, all); len(ids) != 0 {
		t.Errorf("unasked, the requests %d went out", ids)
	}
	s.gw.must("probe", "anna@example.org")
	await(t, "what we were told to ask is answered", func() bool { return len(s.gw.logged("probe answered")) == 1 })
	if ids, _ := probes(t, all); len(ids) != 1 {
		t.Errorf("the requests %d went out", ids)
	}
}

// TestStrongSwanDies: of a peer that was killed nothing stays behind, and what
// it had is the next one's.
func TestStrongSwanDies(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, gatewayConfig{dpd: shortDPD, pool: "10.98.0.7/32"})
	routes := routing(t, s.net.Gateway)
	set := s.gw.maps()
	all := s.uplink(nil)
	client := s.client(0, "")
	initiate(t, client, "net")
	second := s.client(1, "", peerConfig{id: "bert@example.org"})
	if err := second.Initiate("net"); err == nil || !strings.Contains(err.Error(), "INTERNAL_ADDRESS_FAILURE") {
		t.Errorf("the only address is given twice: %v", err)
	}
	if err := second.Terminate("home"); err != nil {
		t.Fatal(err)
	}
	spi := parseSPI(t, s.gw.peer().Child.InSPI)

	before := len(messages(all, true, informational, false))
	client.Process().Kill()
	s.cleared(routes)
	ids, sent := probes(t, all)
	if last := ids[len(ids)-1]; sent[last] != requests {
		t.Errorf("%d times the last request went out, want %d", sent[last], requests)
	}
	if n := len(messages(all, true, informational, false)); n < before+requests {
		t.Errorf("%d requests, %d before", n, before)
	}
	dead := s.gw.logged("dead")
	if again := s.gw.logged("retransmit"); len(dead) != 1 || len(again) != requests-1 || again[requests-2].Try != requests-1 {
		t.Errorf("our log: %+v, %+v", again, dead)
	}
	if _, _, ok := set.Hot.Read(spi); ok {
		t.Errorf("the SPI %08x still has a slot", spi)
	}
	initiate(t, second, "net")
	if sa, _ := only(t, second); vipOf(t, sa.LocalVIPs) != netip.MustParseAddr("10.98.0.7") {
		t.Errorf("the next client has %v", sa.LocalVIPs)
	}
}

// TestStrongSwanDiesOften: what many dead peers have cost is given back.
func TestStrongSwanDiesOften(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{dpd: shortDPD})
	routes := routing(t, s.net.Gateway)
	set := s.gw.maps()
	const branches, rounds = 40, 4
	var configs []peerConfig
	for i := range branches {
		configs = append(configs, peerConfig{name: fmt.Sprintf("b%d", i), id: fmt.Sprintf("b%d.branch.example", i), vips: "none",
			localTS: fmt.Sprintf("10.20.%d.0/24", i)})
		// strongSwan makes no route where it has no address to send from.
		lan := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20, byte(i), 1}), 32)
		if err := s.net.Clients[0].Address("lo", lan); err != nil {
			t.Fatal(err)
		}
	}
	var first status
	for round := range rounds {
		client := s.client(0, "", configs...)
		for _, c := range configs {
			initiate(t, client, c.name)
		}
		spis, tuples := tracked(t, set)
		if len(spis) != branches || len(tuples) != 1 || tuples[0].Owners != branches {
			t.Errorf("%d SPIs, tuples %+v", len(spis), tuples)
		}
		if now := routing(t, s.net.Gateway); len(now) != len(routes)+branches {
			t.Errorf("%d routes more", len(now)-len(routes))
		}
		client.Process().Kill()
		s.cleared(routes)
		if dead := len(s.gw.logged("dead")); dead != (round+1)*branches {
			t.Errorf("%d are dead after round %d", dead, round)
		}
		if round == 0 {
			first = s.gw.settled()
		}
	}
	const slack = 96 << 10 // less than 1 kB for each peer that has died since
	now := s.gw.settled()
	if now.Process.Goroutines > first.Process.Goroutines || now.Process.HeapBytes > first.Process.HeapBytes+slack {
		t.Error("the daemon has grown")
	}
	t.Logf("after one round %+v, after %d %+v", first.Process, rounds, now.Process)
}

// TestStrongSwanReplaced: a strongSwan that comes again before anybody has
// noticed its death says so by INITIAL_CONTACT, and takes its own place.
func TestStrongSwanReplaced(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	dir := t.TempDir()
	var old peer
	var vip netip.Addr
	for round := range 3 {
		client := s.clientIn(dir, 0, "")
		initiate(t, client, "net")
		sa, _ := only(t, client)
		now := s.gw.peer()
		if round > 0 && (vipOf(t, sa.LocalVIPs) != vip || now.SPI == old.SPI || now.Child.InSPI == old.Child.InSPI) {
			t.Errorf("round %d: %+v replaces %+v, and has %v instead of %v", round, now, old, sa.LocalVIPs, vip)
		}
		old, vip = now, vipOf(t, sa.LocalVIPs)
		ping(t, s.net.Clients[0], vip, inner, 2, 10*time.Millisecond)
		checkOne(s, old)
		if replaced := len(s.gw.logged("replaced")); replaced != round {
			t.Errorf("%d were replaced by round %d", replaced, round)
		}
		kill(client)
	}
}

// kill ends a strongSwan without a word to anybody.
func kill(d *charon.Daemon) {
	d.Process().Kill()
	<-d.Process().Done()
}

// checkOne looks for what there is beside the only tunnel.
func checkOne(s *site, p peer) {
	s.Helper()
	spis, tuples := tracked(s.T, s.gw.maps())
	if !slices.Equal(spis, []uint32{parseSPI(s.T, p.Child.InSPI)}) || len(tuples) != 1 ||
		tuples[0].Tuple.Peer != p.Remote || tuples[0].Owners != 1 {
		s.Errorf("the maps hold the SPIs %x and the tuples %+v for %+v", spis, tuples, p)
	}
	if st := s.gw.status(); st.IKE.Up != 1 || st.IKE.Leases["office"] != 1 {
		s.Errorf("status: %d up, leases %v", st.IKE.Up, st.IKE.Leases)
	}
}
