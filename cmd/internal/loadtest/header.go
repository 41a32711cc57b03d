package loadtest

import "encoding/binary"

// The exchanges of a handshake. RFC 7296 §3.1
const (
	saInit  = 34
	ikeAuth = 35
)

// header is what tells the messages of a handshake apart. RFC 7296 §3.1
type header struct {
	initiator, responder uint64 // SPIs
	exchange             byte
}

// headerOf reads a message's header; false for what is too short for one.
func headerOf(b []byte) (h header, ok bool) {
	const (
		atResponder = 8
		atExchange  = 18
		length      = 28
	)
	if len(b) < length {
		return h, false
	}
	return header{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[atResponder:]), b[atExchange]}, true
}

// first reports whether it begins a handshake, or begins it again with a cookie
// or another group.
func (h header) first() bool { return h.exchange == saInit && h.responder == 0 }

// agrees reports whether it is an answer that leads to a key exchange, if it is
// an answer: one that asks for a cookie or for another group has no SPI.
func (h header) agrees() bool { return h.exchange == saInit && h.responder != 0 }
