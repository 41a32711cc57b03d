package suite

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// EncrKey is an encryption algorithm with its key length in bits, which is 0
// where the length is fixed.
type EncrKey struct{ ID, KeyBits uint16 }

// Proposal is one set of acceptable algorithms. Several of a type are
// alternatives in the order of preference.
type Proposal struct {
	Encr                []EncrKey
	Integ, PRF, KE, ESN []uint16
}

// ParseIKE reads a proposal for an IKE SA in swanctl's words, such as
// "aes256gcm16-prfsha384-x25519" or "aes256-sha256-ecp256" (where the PRF
// follows from the integrity algorithm).
func ParseIKE(s string) (Proposal, error) {
	p, err := parse(s)
	if err != nil {
		return Proposal{}, err
	}
	if len(p.ESN) > 0 {
		return Proposal{}, fmt.Errorf("%q is for ESP, not for IKE", esnName(p.ESN[0]))
	}
	if len(p.PRF) == 0 {
		if aead(p.Encr[0]) {
			return Proposal{}, fmt.Errorf("%q in an IKE proposal needs a PRF beside it, such as prfsha256", encrName(p.Encr[0]))
		}
		p.PRF = impliedPRF(p.Integ)
	}
	if len(p.KE) == 0 {
		return Proposal{}, fmt.Errorf("%q has no key exchange, such as x25519", s)
	}
	return p, nil
}

// ParseESP reads a proposal for ESP, such as "aes256gcm16" or
// "aes128-sha256-esn-noesn". Without esn or noesn it means noesn. A key
// exchange is for rekeying; the first Child SA has none of its own.
func ParseESP(s string) (Proposal, error) {
	p, err := parse(s)
	if err != nil {
		return Proposal{}, err
	}
	if len(p.PRF) > 0 {
		return Proposal{}, fmt.Errorf("%q is for IKE, not for ESP", name(wire.TransformPRF, p.PRF[0]))
	}
	if len(p.ESN) == 0 {
		p.ESN = []uint16{wire.ESNNo}
	}
	return p, nil
}

// parse reads the words and checks what holds for IKE and ESP alike.
func parse(s string) (Proposal, error) {
	var p Proposal
	var seen []*algorithm
	for word := range strings.SplitSeq(s, "-") {
		a := named(word)
		if a == nil {
			return p, unknown(word, s)
		}
		if slices.Contains(seen, a) {
			return p, fmt.Errorf("%q stands twice in %q", word, s)
		}
		seen = append(seen, a)
		p.add(a)
	}
	return p, p.checkCipher(s)
}

func (p *Proposal) add(a *algorithm) {
	switch a.kind {
	case wire.TransformEncr:
		p.Encr = append(p.Encr, EncrKey{a.id, a.keyBits})
	case wire.TransformInteg:
		p.Integ = append(p.Integ, a.id)
	case wire.TransformPRF:
		p.PRF = append(p.PRF, a.id)
	case wire.TransformKE:
		p.KE = append(p.KE, a.id)
	case wire.TransformESN:
		p.ESN = append(p.ESN, a.id)
	}
}

// checkCipher wants encryption, with integrity or authenticated by itself.
// The two kinds cannot share a proposal: one integrity choice must fit every
// cipher of it. RFC 5282 §8
func (p *Proposal) checkCipher(s string) error {
	if len(p.Encr) == 0 {
		return fmt.Errorf("%q has no encryption, such as aes256gcm16", s)
	}
	first := p.Encr[0]
	for _, e := range p.Encr {
		if aead(e) != aead(first) {
			return fmt.Errorf("%q and %q cannot stand in one proposal: write two", encrName(first), encrName(e))
		}
	}
	switch {
	case aead(first) && len(p.Integ) > 0:
		return fmt.Errorf("%q has no place beside %q, which authenticates by itself", name(wire.TransformInteg, p.Integ[0]), encrName(first))
	case !aead(first) && len(p.Integ) == 0:
		return fmt.Errorf("%q needs an integrity algorithm beside it, such as sha256", encrName(first))
	}
	return nil
}

// weak are names that strongSwan knows and this gateway refuses on purpose.
var weak = []string{"md5", "sha1", "sha", "3des", "des", "null", "cast128", "blowfish", "modp768", "modp1024", "modp1536", "prfmd5", "prfsha1", "ecp192", "ecp224"}

func unknown(word, s string) error {
	switch {
	case word == "":
		return fmt.Errorf("%q has an empty word", s)
	case slices.Contains(weak, word):
		return fmt.Errorf("%q is too weak and not supported", word)
	case named(strings.ToLower(word)) != nil:
		return fmt.Errorf("%q is written %q", word, strings.ToLower(word))
	}
	return fmt.Errorf("%q is no known algorithm", word)
}

// impliedPRF is the PRF with the hash of each integrity algorithm, as swanctl
// has it.
func impliedPRF(integ []uint16) []uint16 {
	var prfs []uint16
	for _, id := range integ {
		word := "prf" + name(wire.TransformInteg, id)
		prfs = append(prfs, named(word).id)
	}
	return prfs
}

func aead(e EncrKey) bool {
	a := find(wire.TransformEncr, e.ID, e.KeyBits)
	return a != nil && a.aead != nil
}

// String is what ParseIKE or ParseESP reads back as the same proposal.
func (p Proposal) String() string {
	var words []string
	for _, e := range p.Encr {
		words = append(words, encrName(e))
	}
	words = appendNames(words, wire.TransformInteg, p.Integ)
	if !slices.Equal(p.PRF, impliedPRF(p.Integ)) {
		words = appendNames(words, wire.TransformPRF, p.PRF)
	}
	words = appendNames(words, wire.TransformKE, p.KE)
	if !slices.Equal(p.ESN, []uint16{wire.ESNNo}) {
		words = appendNames(words, wire.TransformESN, p.ESN)
	}
	return strings.Join(words, "-")
}

func appendNames(words []string, kind wire.TransformType, ids []uint16) []string {
	for _, id := range ids {
		words = append(words, name(kind, id))
	}
	return words
}

func encrName(e EncrKey) string { return nameOf(wire.TransformEncr, e.ID, e.KeyBits) }
func esnName(id uint16) string  { return name(wire.TransformESN, id) }

func name(kind wire.TransformType, id uint16) string { return nameOf(kind, id, 0) }

func nameOf(kind wire.TransformType, id, keyBits uint16) string {
	if a := find(kind, id, keyBits); a != nil {
		return a.names[0]
	}
	return fmt.Sprintf("unknown(%d,%d,%d)", kind, id, keyBits)
}

// Wire is the proposal as it is offered. An ESP offer leaves out the key
// exchange: in IKE_AUTH it must not stand. RFC 7296 §1.2
func (p Proposal) Wire(number uint8, proto wire.ProtocolID, spi []byte) wire.Proposal {
	w := wire.Proposal{Number: number, Protocol: proto, SPI: slices.Clone(spi)}
	for _, e := range p.Encr {
		w.Transforms = append(w.Transforms, wire.Transform{Type: wire.TransformEncr, ID: e.ID, KeyBits: e.KeyBits})
	}
	w.Transforms = appendTransforms(w.Transforms, wire.TransformPRF, p.PRF)
	w.Transforms = appendTransforms(w.Transforms, wire.TransformInteg, p.Integ)
	if proto == wire.ProtoIKE {
		w.Transforms = appendTransforms(w.Transforms, wire.TransformKE, p.KE)
	}
	w.Transforms = appendTransforms(w.Transforms, wire.TransformESN, p.ESN)
	return w
}

func appendTransforms(ts []wire.Transform, kind wire.TransformType, ids []uint16) []wire.Transform {
	for _, id := range ids {
		ts = append(ts, wire.Transform{Type: kind, ID: id})
	}
	return ts
}

// Choice is one algorithm of each type: what was agreed. An IKE choice has a
// PRF, an ESP choice has none; Integ is 0 where the cipher authenticates.
type Choice struct{ Encr, KeyBits, Integ, PRF, KE, ESN uint16 }

// proposal is the proposal with this choice only.
func (c Choice) proposal() Proposal {
	p := Proposal{Encr: []EncrKey{{c.Encr, c.KeyBits}}}
	if c.Integ != wire.IntegNone {
		p.Integ = []uint16{c.Integ}
	}
	if c.KE != wire.KENone {
		p.KE = []uint16{c.KE}
	}
	if c.PRF != 0 {
		p.PRF = []uint16{c.PRF}
	} else {
		p.ESN = []uint16{c.ESN}
	}
	return p
}

// String is the choice in swanctl's words, like "aes256gcm16-prfsha384-x25519".
func (c Choice) String() string { return c.proposal().String() }

// Wire is the choice as it is answered: one transform of each type.
func (c Choice) Wire(number uint8, proto wire.ProtocolID, spi []byte) wire.Proposal {
	return c.proposal().Wire(number, proto, spi)
}
