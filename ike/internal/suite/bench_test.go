package suite

import (
	"crypto/rand"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// BenchmarkSK seals and opens a message of 80 bytes, keyed anew each time;
// "keyed" is the part that a cached cipher would save.
func BenchmarkSK(b *testing.B) {
	for _, name := range []string{"aes256gcm16-prfsha384-x25519", "chacha20poly1305-prfsha256-x25519", "aes256-sha256-x25519"} {
		c := choice(b, name)
		k := keys(c)
		ps := notify(40)
		msg := c.Seal(nil, header, ps, &k.Ei, &k.Ai, 1)
		m := parsed(b, msg)
		b.Run(name+"/keyed", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.keyed(&k.Ei, &k.Ai); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/seal", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				msg = c.Seal(msg[:0], header, ps, &k.Ei, &k.Ai, 1)
			}
		})
		b.Run(name+"/open", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Open(msg, m, &k.Ei, &k.Ai); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkKE is the work of one side of IKE_SA_INIT.
func BenchmarkKE(b *testing.B) {
	for _, g := range groups {
		b.Run(name(wire.TransformKE, g), func(b *testing.B) {
			peer, err := Generate(g, rand.Reader)
			if err != nil {
				b.Fatal(err)
			}
			public := peer.Public()
			for b.Loop() {
				p, err := Generate(g, rand.Reader)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Agree(public); err != nil || len(p.Public()) == 0 {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDeriveIKE is the key derivation of one IKE SA.
func BenchmarkDeriveIKE(b *testing.B) {
	c := choice(b, "aes256gcm16-prfsha256-x25519")
	b.ReportAllocs()
	for b.Loop() {
		keys(c)
	}
}
