package suite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// ErrNoProposal means that nothing offered is acceptable: NO_PROPOSAL_CHOSEN.
var ErrNoProposal = errors.New("no proposal chosen")

// ErrAnswer means that the responder answered with what was not offered.
var ErrAnswer = errors.New("the answer is none of our proposals")

// Chosen is an agreed set of algorithms, with the number of the peer's
// proposal and the SPI in it.
type Chosen struct {
	Choice
	Number uint8
	SPI    []byte
}

// Choose is the responder's part: the first of its own proposals, in its own
// order, that some offered one satisfies. In it the KE method is guess, the
// initiator's KE payload, if both allow that, else the first of our own, which
// then is a matter of INVALID_KE_PAYLOAD. RFC 7296 §2.7, §3.3
func Choose(own []Proposal, offered []wire.Proposal, proto wire.ProtocolID, guess uint16) (Chosen, error) {
	for _, p := range own {
		for _, o := range offered {
			if c, ok := p.choose(o, proto, guess); ok {
				return Chosen{Choice: c, Number: o.Number, SPI: o.SPI}, nil
			}
		}
	}
	return Chosen{}, ErrNoProposal
}

// Accept is the initiator's part: the answer must be one proposal with one
// transform of each type, all of them of our own proposal of that number,
// counted from 1. RFC 7296 §2.7, §3.3.6
func Accept(own []Proposal, answer []wire.Proposal, proto wire.ProtocolID) (Chosen, error) {
	if len(answer) != 1 {
		return Chosen{}, fmt.Errorf("%w: it has %d proposals", ErrAnswer, len(answer))
	}
	a := answer[0]
	if a.Number == 0 || int(a.Number) > len(own) {
		return Chosen{}, fmt.Errorf("%w: number %d of %d", ErrAnswer, a.Number, len(own))
	}
	for i, t := range a.Transforms {
		if t.Unknown {
			return Chosen{}, fmt.Errorf("%w: a transform with an unknown attribute", ErrAnswer)
		}
		if slices.ContainsFunc(a.Transforms[:i], func(u wire.Transform) bool { return u.Type == t.Type }) {
			return Chosen{}, fmt.Errorf("%w: two transforms of type %d", ErrAnswer, t.Type)
		}
	}
	c, ok := own[a.Number-1].choose(a, proto, 0)
	if !ok {
		return Chosen{}, fmt.Errorf("%w: not within number %d", ErrAnswer, a.Number)
	}
	return Chosen{Choice: c, Number: a.Number, SPI: a.SPI}, nil
}

// choose picks one transform of each type that stands in both p and o.
func (p Proposal) choose(o wire.Proposal, proto wire.ProtocolID, guess uint16) (Choice, bool) {
	if o.Protocol != proto || !spiFits(o.SPI, proto) || !typesKnown(o, proto) {
		return Choice{}, false
	}
	c, ok := p.chooseCipher(o)
	if !ok {
		return Choice{}, false
	}
	if proto == wire.ProtoESP {
		// No KE of its own in IKE_AUTH: absent or NONE. RFC 7296 §1.2
		c.ESN, ok = first(p.ESN, o, wire.TransformESN)
		return c, ok && absent(o, wire.TransformKE)
	}
	if c.PRF, ok = first(p.PRF, o, wire.TransformPRF); !ok {
		return Choice{}, false
	}
	if slices.Contains(p.KE, guess) && has(o, wire.TransformKE, guess, 0) {
		c.KE = guess
		return c, true
	}
	c.KE, ok = first(p.KE, o, wire.TransformKE)
	return c, ok
}

// chooseCipher picks encryption together with the integrity that fits it: an
// AEAD wants none, absent or NONE; the others want one. RFC 5282 §8
func (p Proposal) chooseCipher(o wire.Proposal) (Choice, bool) {
	for _, e := range p.Encr {
		if !has(o, wire.TransformEncr, e.ID, e.KeyBits) {
			continue
		}
		c := Choice{Encr: e.ID, KeyBits: e.KeyBits}
		ok := aead(e) && absent(o, wire.TransformInteg)
		if !aead(e) {
			c.Integ, ok = first(p.Integ, o, wire.TransformInteg)
		}
		if ok {
			return c, true
		}
	}
	return Choice{}, false
}

// first is the first of ours that was offered.
func first(ours []uint16, o wire.Proposal, kind wire.TransformType) (uint16, bool) {
	for _, id := range ours {
		if has(o, kind, id, 0) {
			return id, true
		}
	}
	return 0, false
}

// has looks for exactly this transform. One with an attribute that we do not
// understand must not be chosen, and a key length where none belongs is no
// match. RFC 7296 §3.3.5, §3.3.6
func has(o wire.Proposal, kind wire.TransformType, id, keyBits uint16) bool {
	return slices.Contains(o.Transforms, wire.Transform{Type: kind, ID: id, KeyBits: keyBits})
}

// absent reports whether a type may be left out: it was not offered, or NONE
// was among the offers. RFC 7296 §3.3.3
func absent(o wire.Proposal, kind wire.TransformType) bool {
	const none = 0 // of integrity and of KE alike
	return has(o, kind, none, 0) ||
		!slices.ContainsFunc(o.Transforms, func(t wire.Transform) bool { return t.Type == kind })
}

// typesKnown refuses a proposal with a transform type that we do not know or
// that does not belong to the protocol: we would have to choose one of it.
// RFC 7296 §3.3.6
func typesKnown(o wire.Proposal, proto wire.ProtocolID) bool {
	for _, t := range o.Transforms {
		switch t.Type {
		case wire.TransformEncr, wire.TransformInteg, wire.TransformKE:
		case wire.TransformPRF:
			if proto != wire.ProtoIKE {
				return false
			}
		case wire.TransformESN:
			if proto != wire.ProtoESP {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// spiFits checks the SPI of a proposal: none for the first IKE SA, 8 bytes
// when it is rekeyed, 4 bytes for ESP, where 0 to 255 are reserved.
// RFC 7296 §3.3.1, RFC 4303 §2.1
func spiFits(spi []byte, proto wire.ProtocolID) bool {
	switch proto {
	case wire.ProtoIKE:
		return len(spi) == 0 || len(spi) == 8
	case wire.ProtoESP:
		return len(spi) == 4 && binary.BigEndian.Uint32(spi) > 255
	}
	return false
}
