package suite

import (
	"bytes"
	"crypto/rand"
	"math/big"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

var groups = []uint16{
	wire.KEX25519, wire.KEECP256, wire.KEECP384, wire.KEECP521,
	wire.KEMODP2048, wire.KEMODP3072, wire.KEMODP4096,
}

// withPrivate is a key pair with this scalar or exponent.
func withPrivate(t *testing.T, group uint16, private []byte) *Private {
	t.Helper()
	p := &Private{alg: find(wire.TransformKE, group, 0)}
	if p.alg.prime != nil {
		p.exponent = private
	} else {
		var err error
		if p.curve, err = drawScalar(p.alg.curve, bytes.NewReader(private)); err != nil {
			t.Fatal(err)
		}
	}
	p.public = p.makePublic()
	return p
}

func TestAgree(t *testing.T) {
	for _, g := range groups {
		a, err := Generate(g, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Generate(g, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		x, err := a.Agree(b.Public())
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.Agree(a.Public())
		if err != nil || !bytes.Equal(x, y) || a.Group() != g {
			t.Errorf("group %d: %x and %x, %v", g, x, y, err)
		}
	}
}

// TestGenerateDraws wants the key to come from the reader alone, and a reader
// that gives nothing usable to be an error.
func TestGenerateDraws(t *testing.T) {
	for _, g := range groups {
		stream := bytes.Repeat([]byte{0x5a, 1, 2}, 100)
		a, err := Generate(g, bytes.NewReader(stream))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := Generate(g, bytes.NewReader(stream))
		other, _ := Generate(g, bytes.NewReader(stream[1:]))
		if !bytes.Equal(a.Public(), b.Public()) || bytes.Equal(a.Public(), other.Public()) {
			t.Errorf("group %d does not draw from its reader", g)
		}
		if _, err := Generate(g, bytes.NewReader(stream[:8])); err == nil {
			t.Errorf("group %d: made a key of 8 bytes", g)
		}
	}
	if _, err := Generate(1, rand.Reader); err == nil {
		t.Error("made a key of MODP768")
	}
}

// TestGenerateRejects wants a scalar of 0, or not below the order, to be drawn
// again, and a source of nothing else to be given up.
func TestGenerateRejects(t *testing.T) {
	for _, g := range []uint16{wire.KEECP256, wire.KEECP384, wire.KEECP521} {
		n := scalarLen(find(wire.TransformKE, g, 0).curve)
		good := append(make([]byte, n-1), 7)
		stream := bytes.Join([][]byte{make([]byte, n), bytes.Repeat([]byte{0xff}, n), good}, nil)
		p, err := Generate(g, bytes.NewReader(stream))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.curve.Bytes(), good) {
			t.Errorf("group %d: drew %x", g, p.curve.Bytes())
		}
		if _, err := Generate(g, zeros{}); err == nil {
			t.Errorf("group %d: made a key of zeros", g)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestVectorsKE(t *testing.T) {
	methods := map[string]uint16{
		"CURVE_25519": wire.KEX25519, "ECP_256_BIT": wire.KEECP256, "ECP_384_BIT": wire.KEECP384,
		"ECP_521_BIT": wire.KEECP521, "MODP_2048_BIT": wire.KEMODP2048,
		"MODP_3072_BIT": wire.KEMODP3072, "MODP_4096_BIT": wire.KEMODP4096,
	}
	n := 0
	vs := append(strongswan(t, "curve25519"), strongswan(t, "ecp")...)
	for _, v := range append(vs, strongswan(t, "modp")...) {
		g, ok := methods[v.Method]
		if !ok {
			continue
		}
		n++
		seed := unhex(t, v.Seed)
		checkExchange(t, v.Name, g, seed[:len(seed)/2], seed[len(seed)/2:], unhex(t, v.PubI), unhex(t, v.PubR), unhex(t, v.Shared))
	}
	ran(t, n, 8)

	var f struct{ I, GI, R, GR, GIR string }
	load(t, "vectors/rfc/rfc5903_group19.json", &f)
	checkExchange(t, "RFC 5903 §8.1", wire.KEECP256, unhex(t, f.I), unhex(t, f.R), unhex(t, f.GI), unhex(t, f.GR), unhex(t, f.GIR))
}

func checkExchange(t *testing.T, name string, group uint16, i, r, pubI, pubR, shared []byte) {
	t.Helper()
	a, b := withPrivate(t, group, i), withPrivate(t, group, r)
	if !bytes.Equal(a.Public(), pubI) || !bytes.Equal(b.Public(), pubR) {
		t.Errorf("%s: public values %x and %x", name, a.Public(), b.Public())
	}
	x, errX := a.Agree(pubR)
	y, errY := b.Agree(pubI)
	if errX != nil || errY != nil || !bytes.Equal(x, shared) || !bytes.Equal(y, shared) {
		t.Errorf("%s: secrets %x %v and %x %v, want %x", name, x, errX, y, errY, shared)
	}
}

// TestX25519 is RFC 7748 §6.1, for where the other vectors are not at hand.
func TestX25519(t *testing.T) {
	checkExchange(t, "RFC 7748 §6.1", wire.KEX25519,
		unhex(t, "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
		unhex(t, "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
		unhex(t, "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
		unhex(t, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
		unhex(t, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"))
}

type wycheproofECDH struct {
	TestGroups []struct {
		Tests []struct {
			Public, Private, Shared, Comment, Result string
			Flags                                    []string
		}
	}
}

func TestVectorsWycheproofX25519(t *testing.T) {
	var f wycheproofECDH
	load(t, "vectors/wycheproof/x25519_test.json", &f)
	n := 0
	for _, g := range f.TestGroups {
		for _, v := range g.Tests {
			n++
			got, err := withPrivate(t, wire.KEX25519, unhex(t, v.Private)).Agree(unhex(t, v.Public))
			if strings.Contains(strings.Join(v.Flags, " "), "ZeroSharedSecret") {
				if err == nil {
					t.Errorf("%s: a secret of zeros was taken", v.Comment)
				}
			} else if err != nil || !bytes.Equal(got, unhex(t, v.Shared)) {
				t.Errorf("%s: %x, %v", v.Comment, got, err)
			}
		}
	}
	ran(t, n, 518)
}

// TestVectorsWycheproofECDH takes points without their first octet, as IKE
// sends them; one that is not in the uncompressed form is sent as it is and
// must be refused for its length.
func TestVectorsWycheproofECDH(t *testing.T) {
	n := 0
	for file, group := range map[string]uint16{
		"ecdh_secp256r1_ecpoint_test": wire.KEECP256,
		"ecdh_secp384r1_ecpoint_test": wire.KEECP384,
		"ecdh_secp521r1_ecpoint_test": wire.KEECP521,
	} {
		var f wycheproofECDH
		load(t, "vectors/wycheproof/"+file+".json", &f)
		size := scalarLen(find(wire.TransformKE, group, 0).curve)
		for _, g := range f.TestGroups {
			for _, v := range g.Tests {
				n++
				private := new(big.Int).SetBytes(unhex(t, v.Private)).FillBytes(make([]byte, size))
				public, _ := strings.CutPrefix(v.Public, "04")
				got, err := withPrivate(t, group, private).Agree(unhex(t, public))
				if v.Result == "valid" && (err != nil || !bytes.Equal(got, unhex(t, v.Shared))) {
					t.Errorf("%s %s: %x, %v", file, v.Comment, got, err)
				} else if v.Result != "valid" && err == nil {
					t.Errorf("%s %s: taken", file, v.Comment)
				}
			}
		}
	}
	ran(t, n, 1806)
}

// TestAgreeRefuses is what RFC 6989 §2 wants refused: public values that are
// no element of the group, or of a small subgroup, and wrong lengths.
func TestAgreeRefuses(t *testing.T) {
	for _, g := range groups {
		p, err := Generate(g, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		good := p.Public()
		bad := map[string][]byte{
			"nothing":       {},
			"nil":           nil,
			"one short":     good[:len(good)-1],
			"one long":      append(bytes.Clone(good), 0),
			"one in front":  append([]byte{0}, good...),
			"zero":          make([]byte, len(good)),
			"64 kB":         make([]byte, 65535),
			"doubled":       append(bytes.Clone(good), good...),
			"form in front": append([]byte{4}, good...),
		}
		if g != wire.KEX25519 { // where each other string of 32 bytes is good
			bad["all ones"] = bytes.Repeat([]byte{0xff}, len(good))
			one := make([]byte, len(good))
			one[len(one)-1] = 1
			bad["one"] = one
		}
		for name, public := range bad {
			if secret, err := p.Agree(public); err == nil {
				t.Errorf("group %d: %s taken, secret %x", g, name, secret)
			}
			// Zeros have the right length for X25519: only the secret tells.
			if err := CheckPublic(g, public); err == nil && (g != wire.KEX25519 || name != "zero") {
				t.Errorf("group %d: %s passes the check", g, name)
			}
		}
	}
}

// TestPublicIsThere: whoever sends a public value waits for no computation.
func TestPublicIsThere(t *testing.T) {
	for _, g := range groups {
		p, err := Generate(g, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(10, func() { _ = p.Public() }); n != 0 || len(p.Public()) < 32 {
			t.Errorf("group %d: %v allocations for %d bytes", g, n, len(p.Public()))
		}
	}
}

// TestAgreeMODPBounds tries the values around the prime.
func TestAgreeMODPBounds(t *testing.T) {
	for _, g := range groups {
		p, err := Generate(g, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if p.alg.prime == nil {
			continue
		}
		prime := primeOf(t, p)
		for delta, good := range map[int64]bool{-3: true, -2: true, -1: false, 0: false, 1: false} {
			y := new(big.Int).Add(prime, big.NewInt(delta)).FillBytes(make([]byte, p.alg.prime.size))
			if _, err := p.Agree(y); (err == nil) != good {
				t.Errorf("group %d: p%+d: %v", g, delta, err)
			}
			if err := CheckPublic(g, y); (err == nil) != good {
				t.Errorf("group %d: p%+d: the check says %v", g, delta, err)
			}
		}
		two := big.NewInt(2).FillBytes(make([]byte, p.alg.prime.size))
		if got, err := p.Agree(two); err != nil || !bytes.Equal(got, p.Public()) {
			t.Errorf("group %d: 2 is the generator, but: %v", g, err)
		}
	}
}

// primeOf is the group's prime, once it is seen to be a safe one.
func primeOf(t *testing.T, p *Private) *big.Int {
	t.Helper()
	m := p.alg.prime.modulus()
	n := new(big.Int).SetBytes(m.Nat().Bytes(m))
	if !n.ProbablyPrime(1) || !new(big.Int).Rsh(n, 1).ProbablyPrime(1) {
		t.Fatalf("group %d: not a safe prime", p.Group())
	}
	return n
}
