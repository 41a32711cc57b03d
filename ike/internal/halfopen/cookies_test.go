package halfopen

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// minute is an instant that many rotations after boot.
func minute(m float64) mono.Time { return mono.Time(m * float64(time.Minute)) }

func newCookies(t *testing.T, seed byte) *Cookies {
	c, err := NewCookies(bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	anna  = netip.MustParseAddrPort("203.0.113.9:61201")
	nonce = bytes.Repeat([]byte{0xa5}, 32)
)

const spi = 0x0102030405060708

func TestCookieIsBound(t *testing.T) {
	c := newCookies(t, 1)
	cookie := c.Make(minute(7), spi, nonce, anna)
	if n := len(cookie); n < 1 || n > 64 {
		t.Fatalf("a cookie of %d bytes; RFC 7296 §2.6 allows 1 to 64", n)
	}
	check := func(what string, want bool, by *Cookies, cookie []byte, spi uint64, ni []byte, remote netip.AddrPort) {
		t.Helper()
		if got := by.Check(minute(7.5), cookie, spi, ni, remote); got != want {
			t.Errorf("%s: accepted %v, want %v", what, got, want)
		}
	}
	check("its own", true, c, cookie, spi, nonce, anna)
	check("IPv4-mapped address", true, c, cookie, spi, nonce, netip.MustParseAddrPort("[::ffff:203.0.113.9]:61201"))
	check("other gateway", false, newCookies(t, 2), cookie, spi, nonce, anna)
	check("other SPI", false, c, cookie, spi+1, nonce, anna)
	check("other nonce", false, c, cookie, spi, nonce[1:], anna)
	check("longer nonce", false, c, cookie, spi, append(nonce, 0), anna)
	check("other port", false, c, cookie, spi, nonce, netip.AddrPortFrom(anna.Addr(), anna.Port()+1))
	check("other address", false, c, cookie, spi, nonce, netip.AddrPortFrom(anna.Addr().Next(), anna.Port()))
	check("none", false, c, nil, spi, nonce, anna)
	check("64 bytes", false, c, append(cookie, make([]byte, 64-len(cookie))...), spi, nonce, anna)
	for n := range cookie {
		check(fmt.Sprintf("the first %d bytes", n), false, c, cookie[:n], spi, nonce, anna)
		for bit := range 8 {
			bad := bytes.Clone(cookie)
			bad[n] ^= 1 << bit
			check(fmt.Sprintf("byte %d bit %d", n, bit), false, c, bad, spi, nonce, anna)
		}
	}
}

// TestCookieAge: the secret changes each minute, and the one before is good
// for a minute more, exactly.
func TestCookieAge(t *testing.T) {
	c := newCookies(t, 1)
	for _, born := range []float64{0, 0.999, 1, 255.5, 256.25, 1e6} {
		cookie := c.Make(minute(born), spi, nonce, anna)
		ends := (minute(born)/mono.Time(rotation) + 2) * mono.Time(rotation)
		for _, at := range []struct {
			when mono.Time
			want bool
		}{{minute(born), true}, {ends - 1, true}, {ends, false}, {ends + mono.Time(254*rotation), false}, {ends + mono.Time(1000*rotation), false}} {
			if got := c.Check(at.when, cookie, spi, nonce, anna); got != at.want {
				t.Errorf("made at %v, checked at %v: accepted %v", minute(born), at.when, got)
			}
		}
	}
	if bytes.Equal(c.Make(minute(0.5), spi, nonce, anna)[1:], c.Make(minute(1.5), spi, nonce, anna)[1:]) {
		t.Error("two minutes share a secret")
	}
}

// TestCookiesAround: whoever was asked before he was let in, or just after, has
// one of these.
func TestCookiesAround(t *testing.T) {
	c := newCookies(t, 1)
	for _, at := range []float64{0, 0.5, 1, 7.25} {
		around := c.Around(minute(at), spi, nonce, anna)
		for _, asked := range []float64{at - 2, at - 1, at, at + 1} {
			if asked < 0 {
				continue
			}
			cookie := c.Make(minute(asked), spi, nonce, anna)
			if !slices.ContainsFunc(around, func(o []byte) bool { return bytes.Equal(o, cookie) }) {
				t.Errorf("let in at %v, asked at %v: not known", minute(at), minute(asked))
			}
		}
	}
}

func TestCookiesNeedRandomness(t *testing.T) {
	broken := errors.New("broken")
	if _, err := NewCookies(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the random source", err)
	}
	if _, err := NewCookies(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a short seed was taken")
	}
}

func TestCookiesAreShared(t *testing.T) {
	c := newCookies(t, 1)
	var wg sync.WaitGroup
	for i := range uint64(4) {
		wg.Go(func() {
			for n := range uint64(100) {
				if !c.Check(minute(3), c.Make(minute(3), i<<32|n, nonce, anna), i<<32|n, nonce, anna) {
					t.Error("own cookie refused")
				}
			}
		})
	}
	wg.Wait()
}

func TestCookiesHideTheirSeed(t *testing.T) {
	c := newCookies(t, 0x5a)
	if s := fmt.Sprintf("%v %s", c, c); strings.Contains(s, "90") || strings.Contains(s, "5a") {
		t.Errorf("printed: %s", s)
	}
}

func BenchmarkCheck(b *testing.B) {
	c := &Cookies{}
	cookie := c.Make(minute(1), spi, nonce, anna)
	for b.Loop() {
		c.Check(minute(1), cookie, spi, nonce, anna)
	}
}
