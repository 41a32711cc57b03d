package test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestStrongSwanDrifts: the NAT forgets a peer's mapping while DPD would not ask
// for long. His first ESP packet from the new one raises one event, and he is
// asked and answers from there; the tunnel goes on. The next time comes too soon
// for a question, and the tunnel moves all the same.
func TestStrongSwanDrifts(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{dpd: "delay: 10m"})
	all := s.uplink(nil)
	client := s.client(0, "keep_alive = 0s") // from a new mapping they would be a stranger's
	initiate(t, client, "net")
	sa, child := only(t, client)
	vip := vipOf(t, sa.LocalVIPs)
	ping(t, s.net.Clients[0], vip, inner, 2, 10*time.Millisecond)
	if ids, _ := probes(t, all); len(ids) != 0 || s.gw.status().XDP.Events != 0 {
		t.Fatalf("before it has moved the requests %d went out", ids)
	}
	was := s.gw.peer().Remote
	now := s.rebound(vip)
	answered := func() (froms []netip.AddrPort) {
		for _, m := range messages(all, false, informational, true) {
			froms = append(froms, m.from)
		}
		return froms
	}
	await(t, "it is asked and answers", func() bool { return len(answered()) > 0 })

	// The question comes behind the packet. It may have gone to the old mapping
	// before the packet was authenticated: then it has gone to the new one, too.
	asked := messages(all, true, informational, false)
	ids, _ := probes(t, all)
	if last := asked[len(asked)-1].to; len(ids) != 1 || len(asked) > 2+len(s.gw.logged("retransmit")) || asked[0].to != was && asked[0].to != now || last != now {
		t.Errorf("asked %+v, when it had moved from %v to %v", asked, was, now)
	}
	if from := answered(); len(from) != 1 || from[0] != now {
		t.Errorf("answered from %v, want %v", from, now)
	}
	for _, f := range all.Frames() {
		from, _, _, _ := f.UDP()
		if from == now {
			break
		}
		if m, ok := ikeMessage(f); ok && m.exchange == informational {
			t.Errorf("before anything came from %v: %+v", now, m)
		}
	}
	st := s.gw.status()
	if st.XDP.Events != 1 || st.XDP.EventsLost != 0 || st.xdp("esp_udp_moved") == 0 {
		t.Errorf("XDP has told of %d events, lost %d; %d packets from elsewhere", st.XDP.Events, st.XDP.EventsLost, st.xdp("esp_udp_moved"))
	}
	if c := st.IKE.Counters; c["drifts"] != 1 || c["probes_sent"] != 1 || c["probes_drift"] != 1 {
		t.Errorf("counters: %v", c)
	}
	if alarm := s.gw.must("sas", "--alarm"); !strings.Contains(alarm, now.String()) || !strings.HasSuffix(alarm, " moved\n") {
		t.Errorf("alarms: %s", alarm)
	}

	again := s.rebound(vip)
	if entry, ok, err := s.gw.maps().SAs.Get(child.SPIOut); !ok || err != nil || entry.Tuple.Peer != again {
		t.Errorf("the SPI's entry is %+v, %v; the peer is at %v", entry, err, again)
	}
	ping(t, s.net.Clients[0], vip, inner, 3, 10*time.Millisecond)
	ping(t, s.net.Gateway, inner, vip, 3, 10*time.Millisecond)
	if ids, _ := probes(t, all); len(ids) != 1 {
		t.Errorf("in the end the requests %d have gone out", ids)
	}
	if moved := s.gw.logged("moved"); len(moved) != 2 || moved[0].Remote != now.String() || moved[1].Remote != again.String() {
		t.Errorf("our log: %+v", moved)
	}
}

// rebound has the NAT forget its mappings, and gives the only peer's new one.
func (s *site) rebound(vip netip.Addr) netip.AddrPort {
	s.Helper()
	was := s.gw.peer().Remote
	if err := s.net.Masq.Rebind(); err != nil {
		s.Fatal(err)
	}
	var now netip.AddrPort
	await(s.T, "the tunnel has moved", func() bool {
		p := lab.Ping{Src: vip, Dst: inner, Count: 1, Timeout: 200 * time.Millisecond}
		if _, _, err := s.net.Clients[0].Ping(s.T.Context(), p); err != nil {
			s.Fatal(err)
		}
		now = s.gw.peer().Remote
		return now != was
	})
	return now
}

// TestForgedDrifts: who sends packets with a tunnel's SPI, but without its keys,
// moves nothing and gets nothing. The peer is asked where he is, once however
// often XDP tells of it; not at all where DPD is off.
func TestForgedDrifts(t *testing.T) {
	for mode, questions := range map[string]int{"idle": 1, "off": 0} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 2, gatewayConfig{dpd: "delay: 10m, mode: " + mode})
			all := s.uplink(nil)
			client := s.client(0, keyLog)
			initiate(t, client, "net")
			sa, _ := only(t, client)
			vip := vipOf(t, sa.LocalVIPs)
			ping(t, s.net.Clients[0], vip, inner, 2, 10*time.Millisecond)
			was := s.gw.peer()
			f := s.newForger(0, client)
			forged := uint64(0)
			own := netip.AddrPortFrom(lab.ClientAddr(1), 5000)
			const told = 2
			await(t, "XDP has told of it again and again", func() bool {
				broken := f.seal(echo(t, vip, inner))
				broken[len(broken)-1] ^= 1
				sendRaw(t, s.net.Clients[1], own, netip.AddrPortFrom(lab.GatewayAddr, lab.NATTPort), broken)
				forged++
				return s.gw.status().IKE.Counters["drifts"] >= told
			})
			await(t, "all were refused", func() bool { return s.gw.status().Dataplane.Counters["icv"] == forged })

			ids, sent := probes(t, all)
			if len(ids) != questions || len(sent) != questions {
				t.Errorf("the requests %d went out, %v times", ids, sent)
			}
			await(t, "the peer's answers", func() bool { return len(messages(all, false, informational, true)) == questions })
			for _, m := range messages(all, true, informational, false) {
				if m.to != was.Remote {
					t.Errorf("asked at %v, and the peer is at %v", m.to, was.Remote)
				}
			}
			for _, frame := range all.Frames() {
				if from, to, b, ok := frame.UDP(); ok && !frame.Outgoing && from.Port() == lab.NATTPort && to != was.Remote {
					t.Errorf("%d bytes went to %v", len(b), to)
				}
			}
			if now := s.gw.peer(); now.Remote != was.Remote || now.SPI != was.SPI || len(s.gw.logged("moved")) != 0 {
				t.Errorf("it was %+v, and is %+v", was, now)
			}
			if n := len(s.gw.logged("drift")); n != 1 {
				t.Errorf("a drift is logged %d times", n)
			}
			if alarm := s.gw.must("sas", "--alarm"); !strings.HasSuffix(alarm, " moved\n") {
				t.Errorf("alarms: %s", alarm)
			}
			checkOne(s, was)
			ping(t, s.net.Gateway, inner, vip, 3, 10*time.Millisecond)
		})
	}
}
