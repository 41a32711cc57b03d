package shard

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// caller is a client that says what it is told to, so also what none of ours
// would. It has no address on the network: the gateway hears it from where its NAT
// would have it, and what goes there comes to it.
type caller struct {
	*telephone
	own   netip.Addr // behind the NAT
	at    netip.Addr // what the gateway sees
	ports [2]uint16  // for 500 and 4500
	id    *wire.ID
	esp   []wire.Proposal
	extra []wire.Payload // of IKE_AUTH

	spi, peerSPI      uint64
	keys              suite.IKEKeys
	request, response []byte
	ni, nr            []byte
	answer            []wire.Payload // to IKE_AUTH
}

// telephone is how callers reach a gateway, and hear from it.
type telephone struct {
	*world
	gateway *site
	ear     sync.Mutex
	heard   map[netip.AddrPort][]byte // the last datagram
}

func (s *site) telephone() *telephone {
	tel := &telephone{world: s.w, gateway: s, heard: map[netip.AddrPort][]byte{}}
	s.w.tap = func(p wire.Packet) {
		tel.ear.Lock()
		defer tel.ear.Unlock()
		tel.heard[p.Remote] = slices.Clone(p.Data)
	}
	return tel
}

// windowsIKE is what a Windows client and a gateway can agree on.
var windowsIKE = ikeProposals("aes256-sha256-modp2048")[0]

// say sends a message, and returns what comes back at once; nil: nothing.
func (c *caller) say(port int, data []byte) []byte {
	from := netip.AddrPortFrom(c.at, c.ports[port])
	c.ear.Lock()
	delete(c.heard, from)
	c.ear.Unlock()
	to := netip.AddrPortFrom(c.gateway.addr, [2]uint16{500, 4500}[port])
	c.gateway.group.DeliverIKE([]wire.Packet{{Local: to, Remote: from, NATT: port == 1, Data: data}})
	c.after(c.latency)
	c.ear.Lock()
	defer c.ear.Unlock()
	return c.heard[from]
}

// natHash is the content of a NAT_DETECTION notify. RFC 7296 §2.23
func natHash(spi uint64, at netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint64(nil, spi)
	b = append(append(b, make([]byte, 8)...), at.Addr().AsSlice()...)
	sum := sha1.Sum(binary.BigEndian.AppendUint16(b, at.Port()))
	return sum[:]
}

// call is the whole handshake. It begins anew: a second call is another SA.
func (c *caller) call() {
	c.t.Helper()
	private, err := suite.Generate(windowsIKE.KE[0], rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	c.ni = make([]byte, 48)
	rand.Read(c.ni)
	c.spi = binary.BigEndian.Uint64(c.ni)
	to := netip.AddrPortFrom(c.gateway.addr, 500)
	m := wire.Message{Header: wire.Header{SPIi: c.spi, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}, Payloads: []wire.Payload{
		&wire.SA{Proposals: []wire.Proposal{windowsIKE.Wire(1, wire.ProtoIKE, nil)}},
		&wire.KE{Group: windowsIKE.KE[0], Data: private.Public()}, &wire.Nonce{Data: c.ni},
		&wire.Notify{Kind: wire.NATDetectionSource, Data: natHash(c.spi, netip.AddrPortFrom(c.own, 500))},
		&wire.Notify{Kind: wire.NATDetectionDest, Data: natHash(c.spi, to)}}}
	c.request = m.Append(nil)
	if c.response = c.say(0, c.request); c.response == nil {
		c.t.Fatalf("%v: no answer to IKE_SA_INIT", c.at)
	}
	c.agree(private)
	c.answer = c.authenticate()
}

// agree reads the answer to IKE_SA_INIT.
func (c *caller) agree(private *suite.Private) {
	c.t.Helper()
	m, err := wire.Parse(c.response)
	if err != nil {
		c.t.Fatal(err)
	}
	ke, ok := wire.Find[*wire.KE](m.Payloads)
	nonce, both := wire.Find[*wire.Nonce](m.Payloads)
	if !ok || !both {
		c.t.Fatalf("%v: answered with %v", c.at, m.Payloads)
	}
	secret, err := private.Agree(ke.Data)
	if err != nil {
		c.t.Fatal(err)
	}
	c.peerSPI, c.nr = m.SPIr, nonce.Data
	c.choice().DeriveIKE(&c.keys, secret, c.ni, c.nr, c.spi, c.peerSPI)
}

func (c *caller) choice() suite.Choice {
	p := windowsIKE
	return suite.Choice{Encr: p.Encr[0].ID, KeyBits: p.Encr[0].KeyBits, Integ: p.Integ[0], PRF: p.PRF[0], KE: p.KE[0]}
}

// authenticate is the IKE_AUTH exchange: everything for everybody, as Windows
// asks for it.
func (c *caller) authenticate() []wire.Payload {
	c.t.Helper()
	cp := &wire.CP{Kind: wire.CFGRequest}
	for _, kind := range []uint16{wire.CPInternalIP4Address, wire.CPInternalIP4DNS, 4, 23456, wire.CPInternalIP6Address, wire.CPInternalIP6DNS, 23457} {
		cp.Attrs = append(cp.Attrs, wire.CPAttr{Type: kind})
	}
	all := []wire.Selector{prefix("0.0.0.0/0"), prefix("::/0")}
	ps := slices.Concat([]wire.Payload{c.id,
		&wire.Auth{Method: wire.AuthSharedKey, Data: c.choice().PSKAuth([]byte("a secret of the two, long enough"), c.request, c.nr, &c.keys.Pi, c.id)}},
		c.extra, []wire.Payload{cp, &wire.SA{Proposals: c.esp},
			&wire.TS{T: wire.TypeTSi, Selectors: all}, &wire.TS{T: wire.TypeTSr, Selectors: all}})
	h := wire.Header{SPIi: c.spi, SPIr: c.peerSPI, Exchange: wire.IKEAuth, Flags: wire.FlagInitiator, MessageID: 1}
	data := c.say(1, c.choice().Seal(nil, h, ps, &c.keys.Ei, &c.keys.Ai, 1))
	if data == nil {
		c.t.Fatalf("%v: no answer to IKE_AUTH", c.at)
	}
	m, err := wire.Parse(data)
	if err != nil {
		c.t.Fatal(err)
	}
	ps, err = c.choice().Open(data, m, &c.keys.Er, &c.keys.Ar)
	if err != nil {
		c.t.Fatal(err)
	}
	return ps
}

// given are the addresses that the caller was given.
func (c *caller) given() (out []netip.Addr) {
	cp, ok := wire.Find[*wire.CP](c.answer)
	if !ok {
		return nil
	}
	for _, at := range cp.Attrs {
		if at.Type == wire.CPInternalIP4Address {
			a, _ := netip.AddrFromSlice(at.Value)
			out = append(out, a)
		}
	}
	return out
}

// refused is the error that the caller was answered; 0: none.
func (c *caller) refused() wire.NotifyType {
	for _, p := range c.answer {
		if n, ok := p.(*wire.Notify); ok && n.Kind < 16384 {
			return n.Kind
		}
	}
	return 0
}

// windows is a Windows client behind a NAT. Its identity is the address that it
// has there, which means nothing to anybody else.
func (tel *telephone) windows(own, nat string, port uint16) *caller {
	a := netip.MustParseAddr(own)
	p := espProposals("aes256gcm16")[0].Wire(1, wire.ProtoESP, []byte{0xc0, 0, 0, 7})
	return &caller{telephone: tel, own: a, at: netip.MustParseAddr(nat), ports: [2]uint16{port, port + 1},
		id: &wire.ID{T: wire.TypeIDi, Kind: wire.IDIPv4, Data: a.AsSlice()}, esp: []wire.Proposal{p}}
}

// strangers is a connection for whoever knows the secret.
func strangers() []*policy.Connection {
	conns := roadwarriors()
	c := conns[0]
	c.Name, c.RemoteID, c.Proposals = "strangers", pattern("%any"), []suite.Proposal{windowsIKE}
	c.Child.Proposals = espProposals("aes256gcm16")
	c.DPD.Mode = dpd.Off
	c.MaxSAs, c.MaxLeases = 2, 2
	return conns
}

// TestWindowsSHA1: the ESP of a Windows client that nobody has set up is refused:
// it learns that no proposal fits, and has its IKE SA and no address.
func TestWindowsSHA1(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, strangers())
		c := gateway.telephone().windows("192.168.1.5", "203.0.113.1", 1024)
		c.esp = []wire.Proposal{{Number: 1, Protocol: wire.ProtoESP, SPI: []byte{0xc0, 0, 0, 7}, Transforms: []wire.Transform{
			{Type: wire.TransformEncr, ID: wire.EncrAESCBC, KeyBits: 256}, {Type: wire.TransformInteg, ID: 2}, {Type: wire.TransformESN, ID: wire.ESNNo}}}}
		if got := fmt.Sprint(suite.DescribeOffer(c.esp)); got != "[aes256-sha1]" {
			t.Errorf("offers %s", got)
		}
		c.call()
		if c.refused() != wire.NoProposalChosen || c.given() != nil {
			t.Errorf("answered %v, given %v", c.refused(), c.given())
		}
		if p := gateway.peers(); len(p) != 1 || p[0].Child != nil || p[0].Identity != "192.168.1.5" {
			t.Errorf("%+v", p)
		}
		if n := gateway.status().Leases["office"]; n != 0 {
			t.Errorf("%d addresses are held for it", n)
		}
	})
}
