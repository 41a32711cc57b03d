package bpf

import (
	"testing"
)

// wrapping is a way in which a datagram may come to us.
type wrapping struct {
	name  string
	wrap  func(*frame)
	plain bool // a keepalive in it is an ordinary one
}

func ipOptions(f *frame) { f.ihl, f.options = 6, []byte{1, 1, 1, 0} }

func all(changes ...func(*frame)) func(*frame) {
	return func(f *frame) {
		for _, change := range changes {
			change(f)
		}
	}
}

func wrappings() []wrapping {
	return []wrapping{
		{"IPv4", func(*frame) {}, true},
		{"IPv4 in a VLAN", tagged(etherVLAN), true},
		{"IPv4 in a provider's VLAN", tagged(etherQinQ), true},
		{"IPv4 in QinQ", tagged(etherQinQ, etherVLAN), true},
		{"IPv4 in two customer's tags", tagged(etherVLAN, etherVLAN), true},
		{"IPv4 with options", ipOptions, false},
		{"IPv4 with all options", func(f *frame) { f.ihl, f.options = 15, make([]byte, 40) }, false},
		{"IPv4 with options in QinQ", all(ipOptions, tagged(etherQinQ, etherVLAN)), false},
		{"IPv6", over6, true},
		{"IPv6 in a VLAN", all(over6, tagged(etherVLAN)), true},
		{"IPv6 in QinQ", all(over6, tagged(etherQinQ, etherQinQ)), true},
		{"IPv6 with hop-by-hop options", with(options(protocolHopByHop, 8)), false},
		{"IPv6 with long options", with(options(protocolDestination, 2048)), false},
		{"IPv6 with a routing header", with(routing(0)), false},
		{"IPv6 in an atomic fragment", with(fragmentHeader(0)), false},
		{"IPv6 in an atomic fragment, reserved bits set", with(fragmentHeader(6)), false},
		{"IPv6 with all there is, in order", with(options(protocolHopByHop, 16), options(protocolDestination, 8),
			routing(0), fragmentHeader(0), options(protocolDestination, 24)), false},
		{"IPv6 with eight headers in QinQ", all(with(chain(8)...), tagged(etherQinQ, etherVLAN)), false},
	}
}

// wrapped is every kind of packet in every wrapping but the longest.
func wrapped() map[string]frame {
	frames := map[string]frame{}
	for _, w := range wrappings() {
		for name, f := range map[string]frame{
			"keepalive": keepalive(), "ESP in UDP": espInUDP(knownSPI, 1), "ESP": bareESP(knownSPI, 1),
			"AH": ah(knownSPI, 1), "IKE": ike(500), "IKE NAT-T": ike(4500),
		} {
			if f := f.alter(w.wrap); len(f.build()) < 500 {
				frames[name+", "+w.name] = f
			}
		}
	}
	return frames
}

// What is inside decides, not what is around it.
func TestWrappings(t *testing.T) {
	for _, w := range wrappings() {
		t.Run(w.name, func(t *testing.T) {
			r := registered(t, func(s *settings) { s.AccountEveryPacket = 1 })
			expect := func(f frame, want Reason, changes ...func(*state)) {
				t.Helper()
				for _, padding := range []int{0, 60, 1514} {
					f.padTo = padding
					r.expect(f.alter(w.wrap), want, changes...)
				}
			}
			for seq, sender := range senders()[:6] {
				if f := sender.frame(knownSPI, uint32(seq)); f.fragment != flagMoreFragments {
					expect(f, sender.known, r.seen(knownSPI), accounted(knownSPI, uint32(seq)))
					expect(sender.frame(knownSPI+1, 1), sender.known+unknown)
				}
			}
			expect(ike(500), ReasonIKE500)
			expect(ike(4500), ReasonIKENATT)
			expect(packet(protocolUDP, []byte{0xfe}), ReasonNATTShort)

			if !w.plain {
				expect(keepalive(), ReasonOddKeepalive)
				return
			}
			f := keepalive().alter(w.wrap)
			r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
			expect(keepalive(), ReasonKeepaliveLimited, r.keptAlive(f))
			stranger := fromPort(1001).alter(w.wrap)
			r.expect(stranger, ReasonStrangerDropped, r.strange(stranger))
		})
	}
}
