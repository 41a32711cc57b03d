package test

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// stranger is somebody who sends what he likes, from a socket of his own.
type stranger struct {
	t    *testing.T
	conn map[uint16]*net.UDPConn // by the gateway's port
	sent int
}

func (s *site) stranger(i int) *stranger {
	s.Helper()
	a := &stranger{t: s.T, conn: map[uint16]*net.UDPConn{}}
	for _, port := range []uint16{500, lab.NATTPort} {
		err := s.net.Clients[i].Do(func() (err error) {
			a.conn[port], err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(lab.GatewayAddr, port)))
			return err
		})
		if err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { a.conn[port].Close() })
	}
	return a
}

// send sends a datagram; that its answer may be "nobody there" does not matter.
func (a *stranger) send(port uint16, b []byte) {
	if _, err := a.conn[port].Write(b); err == nil {
		a.sent++
	}
	if a.sent%64 == 0 {
		time.Sleep(time.Millisecond) // nothing is to be lost on the way
	}
}

// sendIKE sends an IKE message to both ports.
func (a *stranger) sendIKE(b []byte) {
	a.send(500, b)
	a.send(lab.NATTPort, append(make([]byte, 4), b...))
}

// spoil sends an IKE message as it is, cut off, and with some bytes changed.
func (a *stranger) spoil(r *rand.Rand, b []byte) {
	a.sendIKE(b)
	for range 20 {
		a.sendIKE(b[:r.IntN(len(b)+1)])
		mutant := slices.Clone(b)
		for range 1 + r.IntN(3) {
			mutant[r.IntN(len(mutant))] = byte(r.Uint32())
		}
		a.sendIKE(mutant)
	}
}

// random sends bytes that mean nothing, and some that begin like something.
func (a *stranger) random(r *rand.Rand, n int) {
	for range n {
		b := make([]byte, r.IntN(1400))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if len(b) > ikeHeader && r.IntN(2) == 0 {
			const version, length = 17, 24
			b[version], b[version+1], b[length], b[length+1] = 0x20, byte(saInit+r.IntN(4)), 0, 0
			b[length+2], b[length+3] = byte(len(b)>>8), byte(len(b))
		}
		a.sendIKE(b)
		a.send(lab.NATTPort, b)
	}
}

// siege is a tunnel amid garbage.
type siege struct {
	*site
	vip       netip.Addr  // of client 0, whose tunnel it is
	handshake []lab.Frame // what brought the tunnel up
	rand      *rand.Rand
}

// TestStrongSwanAmidGarbage: whatever strangers send, a tunnel goes on,
// nothing of theirs stays, and nobody gets more bytes than he has sent.
func TestStrongSwanAmidGarbage(t *testing.T) {
	t.Parallel()
	s := &siege{site: newSite(t, 2, gatewayConfig{})}
	opening := s.uplink(nil)
	client := s.client(0, "", peerConfig{more: "dpd_delay = 1s"})
	initiate(t, client, "net")
	sa, child := only(t, client)
	s.vip = vipOf(t, sa.LocalVIPs)
	s.alive(t)
	await(t, "a question of strongSwan's is answered", func() bool { return len(messages(opening, true, informational, true)) > 0 })
	var err error
	if s.handshake, err = opening.Stop(); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s.rand = rand.New(rand.NewPCG(seed, 0))

	// First, while there is still leave to answer anybody.
	t.Run("IKEv1", func(t *testing.T) { s.unanswered(t, ikeV1) })
	t.Run("captured IKEv1", func(t *testing.T) { s.unanswered(t, cases(t, 1)...) })
	// Inboxes grow to what they have to hold: that is no leak.
	s.stranger(1).random(s.rand, 5000)
	s.alive(t)
	was, before := s.gw.peer(), s.gw.settled()
	all := s.uplink(nil)
	s.doses(t)

	await(t, "nothing half-open is left", func() bool {
		st := s.gw.status()
		return st.IKE.Handshakes.HalfOpen+st.IKE.Connecting == 0
	})
	s.alive(t)
	if now := s.gw.peer(); now.SPI != was.SPI || now.Remote != was.Remote || now.Child.InSPI != was.Child.InSPI {
		t.Errorf("the tunnel is %+v, and was %+v", now, was)
	}
	if _, now := only(t, client); now.SPIOut != child.SPIOut {
		t.Errorf("strongSwan's child is %+v, and was %+v", now, child)
	}
	checkOne(s.site, was)
	checkAmplification(t, all, was.Remote)
	checkHarmless(s.site, before)
}

// alive pings through the tunnel, both ways.
func (s *siege) alive(t *testing.T) {
	t.Helper()
	ping(t, s.net.Clients[0], s.vip, inner, 3, 10*time.Millisecond)
	ping(t, s.net.Gateway, inner, s.vip, 3, 10*time.Millisecond)
}

// ikeV1 is the header of a Main Mode message with 4 bytes behind it. RFC 2408 §3.1
var ikeV1 = []byte{0: 1, 16: 1, 17: 0x10, 18: 2, 27: 32, 31: 4}

// unanswered sends messages that must get no byte in return.
func (s *siege) unanswered(t *testing.T, list ...[]byte) {
	back := s.uplink(func(f lab.Frame) bool { return !f.Outgoing })
	a := s.stranger(1)
	for _, b := range list {
		a.sendIKE(b)
	}
	s.alive(t) // so what came before it has been read
	for _, f := range back.Frames() {
		if _, to, b, ok := f.UDP(); ok && to != s.gw.peer().Remote {
			t.Errorf("%d bytes to %v", len(b), to)
		}
	}
}

// doses are the kinds of garbage.
func (s *siege) doses(t *testing.T) {
	for _, dose := range []struct {
		name string
		send func(t *testing.T, a *stranger)
	}{
		{"random bytes", func(_ *testing.T, a *stranger) { a.random(s.rand, 5000) }},
		{"copies of a tunnel's packets", func(_ *testing.T, a *stranger) { s.copies(a) }},
		{"spoiled packets of its own", func(_ *testing.T, _ *stranger) { s.spoiled() }},
		{"captured messages", func(t *testing.T, a *stranger) {
			for _, b := range cases(t, 2) {
				a.spoil(s.rand, b)
			}
		}},
	} {
		t.Run(dose.name, func(t *testing.T) {
			dose.send(t, s.stranger(1))
			s.alive(t)
		})
	}
}

// copies are the tunnel's packets, and what can be made of them, from somebody
// else.
func (s *siege) copies(a *stranger) {
	for _, f := range s.handshake {
		if m, ok := ikeMessage(f); ok {
			a.spoil(s.rand, m.data)
		}
		if _, _, b, ok := f.UDP(); ok && len(b) > 0 {
			a.send(lab.NATTPort, b)
		}
	}
}

// spoiled are the tunnel's packets from where they belong, with a bit wrong.
func (s *siege) spoiled() {
	own, gateway := netip.AddrPortFrom(lab.ClientAddr(0), lab.NATTPort), netip.AddrPortFrom(lab.GatewayAddr, lab.NATTPort)
	for _, f := range s.handshake {
		_, to, b, ok := f.UDP()
		if !ok || to != gateway {
			continue
		}
		for range 20 {
			mutant := slices.Clone(b)
			mutant[s.rand.IntN(len(mutant))] ^= 1 << s.rand.IntN(8)
			sendRaw(s.T, s.net.Clients[0], own, gateway, mutant)
		}
	}
}

// checkAmplification compares what every source has sent and got.
func checkAmplification(t *testing.T, c *lab.Capture, peer netip.AddrPort) {
	t.Helper()
	frames, err := c.Stop()
	if err != nil {
		t.Error(err)
	}
	in, out := map[netip.AddrPort]int{}, map[netip.AddrPort]int{}
	datagrams := 0
	for _, f := range frames {
		from, to, b, ok := f.UDP()
		switch {
		case !ok:
		case f.Outgoing:
			in[from] += len(b)
			datagrams++
		default:
			out[to] += len(b)
		}
	}
	delete(out, peer)
	for to, n := range out {
		if n > in[to] {
			t.Errorf("%v has sent %d bytes and got %d", to, in[to], n)
		}
	}
	t.Logf("%d datagrams from %d sources; answers to %d of them", datagrams, len(in), len(out))
}

// checkHarmless compares a gateway with what it was.
func checkHarmless(s *site, before status) {
	s.Helper()
	const slack = 1 << 20 // some 40 bytes for each datagram
	now := s.gw.settled()
	s.Logf("before %+v, after %+v", before.Process, now.Process)
	if now.Process.Goroutines > before.Process.Goroutines || now.Process.HeapBytes > before.Process.HeapBytes+slack {
		s.Error("the daemon has grown")
	}
	if now.State != "healthy" || now.IKE.Counters["panics"]+now.IKE.Counters["key_exchange_panics"] != 0 {
		s.Errorf("our gateway is %s: %v", now.State, now.Problems)
	}
	for _, name := range []string{"ike_dropped", "esp_dropped"} {
		if n := now.IKE.Counters[name] - before.IKE.Counters[name]; n != 0 {
			s.Errorf("%s: %d were not even looked at", name, n)
		}
	}
}

// cases are the IKE messages of one major version in the external captures.
func cases(t *testing.T, major int) (out [][]byte) {
	t.Helper()
	file, err := os.Open(filepath.Join(require.Cases(t), "ike_messages.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m struct {
			Raw string `json:"raw"`
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(m.Raw)
		if err != nil {
			t.Fatal(err)
		}
		const version = 17
		if len(b) > version && int(b[version]>>4) == major {
			out = append(out, b)
		}
	}
	if lines.Err() != nil || len(out) == 0 {
		t.Fatalf("%d messages, %v", len(out), lines.Err())
	}
	return out
}
