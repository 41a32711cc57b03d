package suite

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Private is our half of one key exchange, for one use. It redacts itself.
type Private struct {
	alg      *algorithm
	curve    *ecdh.PrivateKey
	exponent []byte
}

// Generate draws a key pair of the group from rand, and only from it: the same
// bytes give the same key, which ecdh.GenerateKey does not promise.
func Generate(group uint16, rand io.Reader) (*Private, error) {
	a := find(wire.TransformKE, group, 0)
	if a == nil {
		return nil, fmt.Errorf("key exchange group %d is not supported", group)
	}
	p := &Private{alg: a}
	var err error
	if a.prime != nil {
		p.exponent, err = a.prime.exponent(rand)
	} else {
		p.curve, err = drawScalar(a.curve, rand)
	}
	if err != nil {
		return nil, fmt.Errorf("generate %s key: %w", a.names[0], err)
	}
	return p, nil
}

// scalarTries bounds the rejection sampling. A draw fails with a chance under
// 2^-32 on the curves here, so 16 failures mean a broken source.
const scalarTries = 16

// drawScalar takes a uniform scalar below the curve's order: draw as many bits
// as the order has, and again when it is not below. FIPS 186-5 A.2.2
func drawScalar(c ecdh.Curve, rand io.Reader) (*ecdh.PrivateKey, error) {
	b := make([]byte, scalarLen(c))
	for range scalarTries {
		if _, err := io.ReadFull(rand, b); err != nil {
			return nil, err
		}
		if c == ecdh.P521() {
			b[0] &= 1
		}
		if key, err := c.NewPrivateKey(b); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("the random source gives no usable scalar")
}

func scalarLen(c ecdh.Curve) int {
	switch c {
	case ecdh.P384():
		return 48
	case ecdh.P521():
		return 66
	}
	return 32
}

// Group is the number of the method. RFC 7296 §3.4
func (p *Private) Group() uint16 { return p.alg.id }

// Public is the key exchange data to send: x|y for the NIST curves, without
// the octet that names the form. RFC 5903 §7, RFC 8031 §3
func (p *Private) Public() []byte {
	switch {
	case p.alg.prime != nil:
		return p.alg.prime.public(p.exponent)
	case p.onNIST():
		return p.curve.PublicKey().Bytes()[1:]
	}
	return p.curve.PublicKey().Bytes()
}

const uncompressed = 4 // SEC 1 §2.3.3

// Agree returns the shared secret with the peer's key exchange data, which is
// checked first: its length, on the curve and not at infinity, between 1 and
// p-1, and for X25519 no secret of zeros. RFC 6989 §2, RFC 8031 §5
func (p *Private) Agree(peer []byte) ([]byte, error) {
	secret, err := p.agree(peer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.alg.names[0], errPublic)
	}
	return secret, nil
}

func (p *Private) agree(peer []byte) ([]byte, error) {
	if p.alg.prime != nil {
		return p.alg.prime.agree(p.exponent, peer)
	}
	if p.onNIST() {
		peer = append([]byte{uncompressed}, peer...)
	}
	if len(peer) != len(p.curve.PublicKey().Bytes()) {
		return nil, errPublic
	}
	pub, err := p.alg.curve.NewPublicKey(peer)
	if err != nil {
		return nil, err
	}
	return p.curve.ECDH(pub)
}

func (p *Private) onNIST() bool { return p.alg.curve != ecdh.X25519() }

func (p *Private) String() string                { return redacted }
func (p *Private) GoString() string              { return redacted }
func (p *Private) LogValue() slog.Value          { return slog.StringValue(redacted) }
func (p *Private) MarshalJSON() ([]byte, error)  { return Key{}.MarshalJSON() }
func (p *Private) Format(f fmt.State, verb rune) { Key{}.Format(f, verb) }
