package test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/ikepulse/ikepulse/test/lab"
)

// The exchange types and flags of RFC 7296 §3.1.
const (
	saInit        = 34
	ikeAuth       = 35
	createChild   = 36
	informational = 37

	flagInitiator = 0x08
	flagResponse  = 0x20
)

// ikeHeader is the length of an IKE header.
const ikeHeader = 28

// message is an IKE message as it passed a link.
type message struct {
	from, to netip.AddrPort
	exchange byte
	flags    byte
	id       uint32
	data     []byte
}

func (m message) response() bool { return m.flags&flagResponse != 0 }

// ikeMessage reads one from a frame; ok is false when it is something else.
func ikeMessage(f lab.Frame) (m message, ok bool) {
	from, to, b, ok := f.UDP()
	switch {
	case !ok:
		return m, false
	case from.Port() == lab.NATTPort || to.Port() == lab.NATTPort:
		if b, ok = bytes.CutPrefix(b, make([]byte, 4)); !ok {
			return m, false
		}
	case from.Port() != 500 && to.Port() != 500:
		return m, false
	}
	if len(b) < ikeHeader {
		return m, false
	}
	return message{from, to, b[18], b[19], binary.BigEndian.Uint32(b[20:]), b}, true
}

// tap records what passes a link.
func tap(t *testing.T, n *lab.Namespace, iface string, keep func(lab.Frame) bool) *lab.Capture {
	t.Helper()
	c, err := n.Capture(iface, keep)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// uplink records what passes between NAT and gateway, as the NAT sees it: there
// even what XDP takes or sends shows. Its outgoing frames go to the gateway.
func (s *site) uplink(keep func(lab.Frame) bool) *lab.Capture {
	s.Helper()
	return tap(s.T, s.net.NAT, "n0", keep)
}

// messages are the IKE messages that one side has sent, by exchange.
func messages(c *lab.Capture, fromGateway bool, exchange byte, response bool) (out []message) {
	for _, f := range c.Frames() {
		m, ok := ikeMessage(f)
		if ok && f.Outgoing != fromGateway && m.exchange == exchange && m.response() == response {
			out = append(out, m)
		}
	}
	return out
}

// probes are the gateway's own INFORMATIONAL requests, each with how often it
// went out, in the order of their first.
func probes(t *testing.T, c *lab.Capture) (ids []uint32, sent map[uint32]int) {
	t.Helper()
	sent = map[uint32]int{}
	first := map[uint32][]byte{}
	for _, m := range messages(c, true, informational, false) {
		if sent[m.id]++; sent[m.id] == 1 {
			ids = append(ids, m.id)
			first[m.id] = m.data
		}
		if !bytes.Equal(first[m.id], m.data) {
			t.Errorf("request %d went out again with other bytes", m.id)
		}
	}
	return ids, sent
}
