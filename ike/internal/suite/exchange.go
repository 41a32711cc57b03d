package suite

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"filippo.io/bigmod"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Private is our half of one key exchange, for one use. It redacts itself.
type Private struct {
	alg      *algorithm
	curve    *ecdh.PrivateKey
	exponent []byte
	public   []byte
}

// Generate draws a key pair of the group from rand, and only from it: the same
// bytes give the same key, which ecdh.GenerateKey does not promise. It costs an
// exponentiation: the public value is made here, so that whoever sends it never
// waits for one.
func Generate(group uint16, rand io.Reader) (*Private, error) {
	a := find(wire.TransformKE, group, 0)
	if a == nil {
		return nil, fmt.Errorf("key exchange group %d is not supported", group)
	}
	p := &Private{alg: a}
	if err := p.draw(rand); err != nil {
		return nil, fmt.Errorf("generate %s key: %w", a.names[0], err)
	}
	return p, nil
}

func (p *Private) draw(rand io.Reader) (err error) {
	if p.alg.prime != nil {
		p.exponent, err = p.alg.prime.exponent(rand)
	} else {
		p.curve, err = drawScalar(p.alg.curve, rand)
	}
	if err == nil {
		p.public = p.makePublic()
	}
	return err
}

func (p *Private) makePublic() []byte {
	if p.alg.prime != nil {
		return p.alg.prime.public(p.exponent)
	}
	public := p.curve.PublicKey().Bytes()
	if onNIST(p.alg.curve) {
		public = public[1:] // the octet that names the form. RFC 5903 §7
	}
	return public
}

// CheckPublic reports what is wrong with a peer's key exchange data, before
// anything is computed with it: its length, whether it is on the curve, or
// between 1 and p-1. RFC 6989 §2. For X25519 only the length can be wrong here;
// Agree finds out whether the secret is all zeros. RFC 8031 §5
func CheckPublic(group uint16, peer []byte) error {
	a := find(wire.TransformKE, group, 0)
	if a == nil {
		return fmt.Errorf("key exchange group %d is not supported", group)
	}
	if _, err := a.value(peer); err != nil {
		return fmt.Errorf("%s: %w", a.names[0], ErrPublic)
	}
	return nil
}

// scalarTries bounds the rejection sampling. A draw fails with a chance under
// 2^-32 on the curves here, so 16 failures mean a broken source.
const scalarTries = 16

// drawScalar takes a uniform scalar below the curve's order: draw as many bits
// as the order has, and again when it is not below. FIPS 186-5 A.2.2
func drawScalar(c ecdh.Curve, rand io.Reader) (*ecdh.PrivateKey, error) {
	b := make([]byte, scalarLen(c))
	defer clear(b)
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

// Wipe overwrites the private value, as far as there is access to it; the public
// one stays. See the package comment.
func (p *Private) Wipe() {
	clear(p.exponent)
	p.exponent, p.curve = nil, nil
}

// Group is the number of the method. RFC 7296 §3.4
func (p *Private) Group() uint16 { return p.alg.id }

// Public is the key exchange data to send: x|y for the NIST curves, without
// the octet that names the form. The caller must not change it. RFC 7296 §3.4,
// RFC 5903 §7, RFC 8031 §3
func (p *Private) Public() []byte { return p.public }

// Agree returns the shared secret with the peer's key exchange data, which is
// checked first, as [CheckPublic] does; a secret of zeros is refused. RFC 8031 §5
func (p *Private) Agree(peer []byte) ([]byte, error) {
	secret, err := p.agree(peer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.alg.names[0], ErrPublic)
	}
	return secret, nil
}

func (p *Private) agree(peer []byte) ([]byte, error) {
	v, err := p.alg.value(peer)
	switch {
	case err != nil:
		return nil, err
	case p.alg.prime != nil:
		return p.alg.prime.agree(p.exponent, v.number), nil
	}
	return p.curve.ECDH(v.point)
}

// value is a peer's key exchange data, checked: a number or a point.
type value struct {
	number *bigmod.Nat
	point  *ecdh.PublicKey
}

func (a *algorithm) value(peer []byte) (v value, err error) {
	if a.prime != nil {
		v.number, err = a.prime.value(peer)
		return v, err
	}
	if onNIST(a.curve) {
		peer = append([]byte{uncompressed}, peer...)
	}
	v.point, err = a.curve.NewPublicKey(peer)
	return v, err
}

const uncompressed = 4 // SEC 1 §2.3.3

func onNIST(c ecdh.Curve) bool { return c != ecdh.X25519() }

func (p *Private) String() string                { return redacted }
func (p *Private) GoString() string              { return redacted }
func (p *Private) LogValue() slog.Value          { return slog.StringValue(redacted) }
func (p *Private) MarshalJSON() ([]byte, error)  { return Key{}.MarshalJSON() }
func (p *Private) Format(f fmt.State, verb rune) { Key{}.Format(f, verb) }
