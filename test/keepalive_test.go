package test

import (
	"testing"

	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/lab"
)

// TestStrongSwanKeepalives: an idle strongSwan behind the NAT keeps its mapping
// alive. XDP answers at its limited rate, by itself, and what it sends comes
// through the NAT to strongSwan's socket, although the sender's checksums are
// left to offloads.
func TestStrongSwanKeepalives(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{answer: "2s"})
	all := tap(t, s.net.Clients[0], lab.ClientLink, lab.Frame.Keepalive)
	client := s.client(0, "keep_alive = 1s")
	initiate(t, client, "net")
	socket := udpCounters(t, s.net.Clients[0])
	set := s.gw.maps()

	await(t, "three keepalives are answered", func() bool { _, answers := split(all); return answers >= 3 })
	if st := s.gw.status(); st.keepalives() != 0 {
		t.Errorf("our sockets saw %d keepalives", st.keepalives())
	}
	s.gw.must("detach", lab.GatewayLink)

	// From here on nothing is answered: the counters stand.
	frozen, answers := split(all)
	counters, err := set.Stats.Read()
	if err != nil {
		t.Fatal(err)
	}
	tuple := maps.Tuple{Local: s.gw.peer().Local, Peer: s.gw.peer().Remote}
	known, ok, err := set.Peers.Get(tuple)
	if !ok || err != nil {
		t.Fatalf("the tuple %v is not in the maps: %v", tuple, err)
	}
	var now map[string]int
	await(t, "the client's sockets have had the answers", func() bool {
		now = udpCounters(t, s.net.Clients[0])
		return now["InDatagrams"]-socket["InDatagrams"] >= answers
	})
	if n := uint64(answers); n != counters.KeepaliveAnswered || n != known.Answers {
		t.Errorf("%d answers came to the client; XDP says %d in all, %d to this tuple", answers, counters.KeepaliveAnswered, known.Answers)
	}
	if got := now["InDatagrams"] - socket["InDatagrams"]; got != answers {
		t.Errorf("%d answers came to the client, %d datagrams to its sockets", answers, got)
	}
	for _, bad := range []string{"InCsumErrors", "InErrors", "NoPorts"} {
		if now[bad] != socket[bad] {
			t.Errorf("%s: %d more", bad, now[bad]-socket[bad])
		}
	}
	if counters.KeepaliveLimited == 0 || counters.KeepaliveAnswered+counters.KeepaliveLimited != known.Keepalives ||
		known.Keepalives > uint64(frozen) {
		t.Errorf("%d keepalives went out; XDP says %d, of which %d answered and %d limited",
			frozen, known.Keepalives, counters.KeepaliveAnswered, counters.KeepaliveLimited)
	}
	checkPartial(t, all)
	checkLimited(t, all)

	await(t, "two more keepalives, to our socket", func() bool { return s.gw.status().keepalives() >= 2 })
	if _, after := split(all); after != answers {
		t.Errorf("%d keepalives were answered without XDP", after-answers)
	}
	if st := s.gw.status(); st.State != "degraded" {
		t.Errorf("without XDP our gateway is %s", st.State)
	}
	s.gw.must("attach", lab.GatewayLink)
	await(t, "keepalives are answered again", func() bool { _, after := split(all); return after > answers })
}

// split counts the keepalives of the client and the answers to them.
func split(c *lab.Capture) (sent, answers int) {
	for _, f := range c.Frames() {
		if f.Outgoing {
			sent++
		} else {
			answers++
		}
	}
	return sent, answers
}

// checkLimited: between two answers at least one keepalive got none.
func checkLimited(t *testing.T, c *lab.Capture) {
	t.Helper()
	sent := 2 // since the last answer; the first answers the first
	for _, f := range c.Frames() {
		switch {
		case f.Outgoing:
			sent++
		case sent < 2:
			t.Error("two keepalives in a row were answered")
		default:
			sent = 0
		}
	}
}

// checkPartial: the sender leaves the UDP checksum to its card, as on a real
// host; only then does it matter what XDP makes of it.
func checkPartial(t *testing.T, c *lab.Capture) {
	t.Helper()
	for _, f := range c.Frames() {
		if f.Outgoing && udpChecksum(f.Data) == 0xffff {
			t.Fatal("a keepalive left the client with a finished checksum: its offloads are off")
		}
	}
}

// udpChecksum sums up an IPv4 UDP datagram in an Ethernet frame, its checksum
// included; 0xffff if that is right.
func udpChecksum(frame []byte) uint16 {
	const ethernet, addresses, header = 14, 12, 20
	ip := frame[ethernet:]
	length := int(ip[header+4])<<8 | int(ip[header+5])
	b := append([]byte(nil), ip[addresses:header]...)
	b = append(b, 0, 17, byte(length>>8), byte(length))
	b = append(b, ip[header:header+length]...)
	return sum16(b)
}
