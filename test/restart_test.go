package test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestStrongSwanOutlivesUs: our daemon is killed. The pins go on telling what
// they know, and XDP goes on answering; the next daemon begins clean, and
// strongSwan comes back by itself.
func TestStrongSwanOutlivesUs(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{answer: "1s"})
	all := tap(t, s.net.Clients[0], lab.ClientLink, lab.Frame.Keepalive)
	client := s.client(0, "keep_alive = 1s\nretransmit_tries = 2\nretransmit_base = 1.0",
		peerConfig{more: "dpd_delay = 8s\nkeyingtries = 0", child: "dpd_action = restart"})
	initiate(t, client, "net")
	set := s.gw.maps()
	was := s.gw.peer()

	s.gw.process.Kill()
	_, answers := split(all)
	await(t, "XDP answers keepalives without the daemon", func() bool { _, now := split(all); return now >= answers+2 })
	out, code := s.gw.cli("status", "--json")
	var st status
	s.gw.decode(out, &st)
	if code != exitDegraded || st.State != "not running" || st.PID != 0 || st.XDP == nil || st.XDP.SPIs != 1 ||
		len(st.XDP.Attachments) != 1 || st.XDP.Attachments[0].Interface != lab.GatewayLink {
		t.Errorf("status without the daemon: code %d\n%s", code, out)
	}
	var sas []child
	s.gw.decode(s.gw.must("sas", "--json"), &sas)
	if len(sas) != 1 || sas[0].InSPI != was.Child.InSPI || sas[0].Remote != was.Remote {
		t.Errorf("sas without the daemon: %+v, was %+v", sas, was)
	}
	var tuples []peer
	s.gw.decode(s.gw.must("peers", "--json"), &tuples)
	if len(tuples) != 1 || tuples[0].Remote != was.Remote || !tuples[0].PeerNATted {
		t.Errorf("peers without the daemon: %+v", tuples)
	}
	if out := s.gw.must("stats"); !strings.Contains(out, "ike_natt") || strings.Contains(out, "established") {
		t.Errorf("stats without the daemon:\n%s", out)
	}
	for _, command := range []string{"initiate", "terminate", "probe"} {
		if out, code := s.gw.cli(command, "home"); code != exitDegraded || !strings.Contains(out, "not running") {
			t.Errorf("%s without the daemon: code %d\n%s", command, code, out)
		}
	}

	s.gw.run()
	if spis, _ := tracked(t, s.gw.maps()); slices.Contains(spis, parseSPI(t, was.Child.InSPI)) {
		t.Errorf("the new daemon keeps the old SPI: %x", spis)
	}
	await(t, "strongSwan is back", func() bool {
		peers := s.gw.peers()
		return len(peers) == 1 && peers[0].Child != nil
	})
	now := s.gw.peer()
	await(t, "strongSwan has one tunnel", func() bool {
		sas, err := client.SAs()
		return err == nil && len(sas) == 1 && len(sas[0].Children) == 1 && sas[0].Children[0].SPIOut == parseSPI(t, now.Child.InSPI)
	})
	checkOne(s, now)
	sa, _ := only(t, client)
	ping(t, s.net.Clients[0], vipOf(t, sa.LocalVIPs), inner, 3, 10*time.Millisecond)
	if _, _, ok := set.Hot.Read(parseSPI(t, now.Child.InSPI)); !ok {
		t.Error("the maps from before the restart do not know the new SPI")
	}
}

// TestStrongSwanOutlivesOurPins: after a kill, detach takes everything away,
// and a new daemon starts from nothing.
func TestStrongSwanOutlivesOurPins(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	client := s.client(0, "")
	initiate(t, client, "net")
	s.gw.process.Kill()
	if out := s.gw.must("detach", "--all"); !strings.Contains(out, lab.GatewayLink+": detached") {
		t.Errorf("detach: %s", out)
	}
	for _, noun := range []string{"sas", "peers", "stats"} {
		if out, code := s.gw.cli(noun); code != exitDegraded {
			t.Errorf("%s without anything: code %d\n%s", noun, code, out)
		}
	}
	out, code := s.gw.cli("status", "--json")
	var st status
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != exitDegraded || st.XDP != nil {
		t.Errorf("status without anything: code %d, %v\n%s", code, err, out)
	}
	s.gw.run()
	if _, err := client.Swanctl("--terminate", "--ike", "home", "--force"); err != nil {
		t.Fatal(err)
	}
	initiate(t, client, "net")
	sa, _ := only(t, client)
	ping(t, s.net.Clients[0], vipOf(t, sa.LocalVIPs), inner, 3, 10*time.Millisecond)
	checkOne(s, s.gw.peer())
}
