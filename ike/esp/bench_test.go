package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"testing"
)

const packetSize = 1400

func benchPacket() []byte {
	return ip4("10.1.0.1", "10.2.0.1", 17, make([]byte, packetSize-20)...)
}

// rawGCM is the cipher alone: what Seal and Open cannot be faster than.
func rawGCM(b *testing.B) cipher.AEAD {
	b.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return aead
}

func BenchmarkSeal(b *testing.B) {
	inner, room := benchPacket(), make([]byte, 0, 2*packetSize)
	b.Run("raw-aes256gcm16", func(b *testing.B) {
		aead, nonce := rawGCM(b), make([]byte, 12)
		b.SetBytes(packetSize)
		b.ReportAllocs()
		for b.Loop() {
			aead.Seal(room, nonce, inner, nonce[:8])
		}
	})
	for _, name := range []string{"aes256gcm16", "aes256gcm16-esn", "chacha20poly1305", "aes256-sha256"} {
		b.Run(name, func(b *testing.B) {
			out, _ := pair(b, name, 64, 1)
			b.SetBytes(packetSize)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := out.Seal(room, inner); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens one packet again and again, with the window set back.
func BenchmarkOpen(b *testing.B) {
	room := make([]byte, 0, 2*packetSize)
	b.Run("raw-aes256gcm16", func(b *testing.B) {
		aead, nonce := rawGCM(b), make([]byte, 12)
		sealed := aead.Seal(nil, nonce, benchPacket(), nonce[:8])
		b.SetBytes(packetSize)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := aead.Open(room, nonce, sealed, nonce[:8]); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, name := range []string{"aes256gcm16", "aes256gcm16-esn", "chacha20poly1305", "aes256-sha256"} {
		b.Run(name, func(b *testing.B) {
			out, in := pair(b, name, 64, 1)
			packet := seal(b, out, benchPacket())
			b.SetBytes(packetSize)
			b.ReportAllocs()
			for b.Loop() {
				in.window.top = 0
				clear(in.window.ring)
				if _, _, err := in.Open(room, packet, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
