package suite

import (
	"bytes"
	"slices"
	"testing"
)

func wiped(b []byte) bool { return !slices.ContainsFunc(b, func(b byte) bool { return b != 0 }) }

// TestESPWiped: the cipher has copies of its keys, and nothing of them once it
// is keyed, or wiped without ever having been.
func TestESPWiped(t *testing.T) {
	c := choice(t, "aes256-sha256-x25519")
	for name, end := range map[string]func(e *ESP){
		"keyed":            func(e *ESP) { e.Seal(make([]byte, espHead+e.IVLen()+16+e.ICVLen()), 1) },
		"keyed, and wiped": func(e *ESP) { e.IVLen(); e.Wipe() },
		"wiped":            func(e *ESP) { e.Wipe() },
	} {
		encr, integ := newKey(bytes.Repeat([]byte{1}, 32)), newKey(bytes.Repeat([]byte{2}, 32))
		e := c.NewESP(encr, integ)
		own := [][]byte{e.encr.Bytes(), e.integ.Bytes()}
		encr.Wipe()
		integ.Wipe()
		if !bytes.Equal(own[0], bytes.Repeat([]byte{1}, 32)) || !bytes.Equal(own[1], bytes.Repeat([]byte{2}, 32)) {
			t.Errorf("%s: the keys are not copies: %x", name, own)
		}
		end(e)
		if !wiped(own[0]) || !wiped(own[1]) {
			t.Errorf("%s: left %x", name, own)
		}
		if name != "keyed" && e.k != nil {
			t.Errorf("%s: the cipher is still held", name)
		}
	}
}

// TestKeyWiped: a shorter key leaves nothing of a longer one.
func TestKeyWiped(t *testing.T) {
	k := newKey(bytes.Repeat([]byte{7}, maxKey))
	all := k.Bytes()
	k.Set([]byte{7, 7})
	if !wiped(all[2:]) || len(k.Bytes()) != 2 {
		t.Errorf("%x", all)
	}
	k.Wipe()
	if !wiped(all) || len(k.Bytes()) != 0 {
		t.Errorf("%x", all)
	}
}

// TestPrivateWiped: of both kinds, what there is access to.
func TestPrivateWiped(t *testing.T) {
	modp := withPrivate(t, 14, bytes.Repeat([]byte{0xab}, 48))
	exponent := modp.exponent
	modp.Wipe()
	if len(exponent) != exponentLen || !wiped(exponent) {
		t.Errorf("%x", exponent)
	}
	source := &remembers{}
	curve, err := Generate(31, source)
	if err != nil || len(source.drawn) != 32 || !wiped(source.drawn) {
		t.Errorf("%v: what was drawn is still there: %x", err, source.drawn)
	}
	if curve.Wipe(); curve.curve != nil || len(curve.Public()) != 32 {
		t.Error("the private key is still held, or the public one is not")
	}
}

// remembers is a source of random bytes, and where they went.
type remembers struct{ drawn []byte }

func (r *remembers) Read(p []byte) (int, error) {
	r.drawn = p
	return copy(p, bytes.Repeat([]byte{0xab}, len(p))), nil
}
