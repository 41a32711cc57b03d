// Package wire turns bytes into IKEv2 messages and back (RFC 7296 §3). It
// judges form, not sense: which payloads an exchange needs, and what a value
// means, is for its callers.
//
// Parsing never panics, whatever the bytes, and keeps no reference to them: a
// receive buffer may be reused at once. What it allocates is bounded by a small
// multiple of the datagram. Everything here is pure and safe for concurrent
// use; a parsed message belongs to whoever parsed it.
//
// Three kinds of error tell the caller what may be answered: *VersionError,
// *CriticalError and *SyntaxError.
package wire

import (
	"encoding/binary"
	"net/netip"
)

// Hard limits on one message, against peers that make us work for nothing.
const (
	maxPayloads   = 256 // a payload of 4 bytes costs us about 60
	maxProposals  = 64
	maxTransforms = 256 // of all proposals of one SA payload
	maxSelectors  = 64
	maxAttributes = 64
	minNonce      = 16 // RFC 7296 §2.10
	maxNonce      = 256
)

// Packet is one UDP datagram. Its owner owns Data.
type Packet struct {
	Local, Remote netip.AddrPort
	NATT          bool   // it came, or goes, on the NAT traversal port
	Data          []byte // an IKE message without non-ESP marker, or ESP from its SPI on
}

// Message is one IKE message.
type Message struct {
	Header
	Payloads []Payload
}

// Parse reads a whole message. An encrypted payload ends it and stays sealed:
// the last payload is then an *Encrypted (or, for a fragment, a *Raw).
func Parse(b []byte) (*Message, error) {
	c := newCursor(b)
	h := c.header()
	if c.ok() && h.Major() != 2 {
		return nil, &VersionError{h.Version}
	}
	// uint64, for an int of 32 bits cannot hold every Length.
	if c.ok() && uint64(h.Length) != uint64(len(b)) {
		c.fail("length field says %d, the datagram has %d bytes", h.Length, len(b))
	}
	ps := c.chain(h.Next, true)
	if !c.ok() {
		return nil, c.run.err
	}
	return &Message{h, ps}, nil
}

// Append writes the message with its own Next and Length, as version 2.0; m
// itself stays as it is. No payload may exceed 65,531 bytes, nor any list its
// count field: whoever builds a message keeps to the limits of the format.
func (m *Message) Append(dst []byte) []byte {
	start := len(dst)
	h := m.Header
	h.Version = version2
	dst = h.Append(dst)
	dst, next := AppendPayloads(dst, m.Payloads)
	dst[start+16] = byte(next)
	binary.BigEndian.PutUint32(dst[start+24:], uint32(len(dst)-start))
	return dst
}
