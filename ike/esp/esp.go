// Package esp seals and opens ESP packets in tunnel mode, in user space: the
// cipher, the replay window, and the check that the packet inside lies in the
// selectors of its SA. It is pure: packets come and go as byte slices, and
// what encapsulates them is the caller's.
//
// Outer ECN is the caller's too. Open applies what came (RFC 6040 §4.2); a
// socket that sends Not-ECT, whatever the inner packet says, is the
// compatibility mode of RFC 6040 §4.1.
package esp

import "errors"

// What Seal and Open refuse a packet for. They come as they are, never
// wrapped: the caller counts by them.
var (
	// ErrMalformed is a packet that is cut short, of another SPI, or whose
	// trailer or inner header is wrong.
	ErrMalformed = errors.New("malformed packet")
	// ErrReplay is a sequence number seen before or left of the window.
	ErrReplay = errors.New("replayed or too old")
	// ErrICV is a packet that the peer did not seal.
	ErrICV = errors.New("integrity check failed")
	// ErrDummy is traffic flow confidentiality: to be dropped in silence.
	ErrDummy = errors.New("dummy packet")
	// ErrSelector is a packet that the SA was not agreed for.
	ErrSelector = errors.New("outside the traffic selectors")
	// ErrECN is congestion experienced on the way by a packet that could not
	// have said so: it must be dropped.
	ErrECN = errors.New("congestion mark on a packet without ECN")
	// ErrSequence means that all sequence numbers are used up.
	ErrSequence = errors.New("sequence numbers exhausted")
)

const (
	headLen    = 8 // SPI and sequence number. RFC 4303 §2
	trailerLen = 2 // pad length and next header

	nextIPv4  = 4
	nextIPv6  = 41
	nextDummy = 59 // RFC 4303 §2.6
)
