// Package halfopen is what stands between an unproven source and a responder's
// memory and CPU: stateless cookies, limits on half-open SAs, and a limit on
// replies that need no SA. RFC 7296 §2.6, RFC 8019 §4
package halfopen

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	// rotation is how long one secret makes cookies; it checks them for as
	// long again, so a cookie lives one to two rotations.
	rotation = 60 * time.Second
	// cookieLen is a version byte and half of an HMAC-SHA256, within the 64
	// bytes that RFC 7296 §2.6 allows and less than any IKE_SA_INIT request.
	cookieLen = 1 + sha256.Size/2
)

// Cookies makes and checks cookies. It keeps nothing about anyone, and any
// goroutine may use it, so that a cookie of one is good at every other.
type Cookies struct {
	seed   [sha256.Size]byte
	latest atomic.Pointer[secret] // made last; those of other epochs are made again
}

// secret is that of one epoch.
type secret struct {
	epoch uint64
	key   [sha256.Size]byte
}

// NewCookies reads the seed of all secrets from rand.
func NewCookies(rand io.Reader) (*Cookies, error) {
	c := new(Cookies)
	_, err := io.ReadFull(rand, c.seed[:])
	return c, err
}

// String keeps the seed out of logs.
func (*Cookies) String() string { return "[cookies]" }

// Make returns the cookie that an initiator must send back from where he is,
// with the SPI and the nonce that he came with.
//
// RFC 7296 §2.6: Cookie = <VersionIDofSecret> | Hash(Ni | IPi | SPIi | <secret>)
func (c *Cookies) Make(now mono.Time, spii uint64, ni []byte, remote netip.AddrPort) []byte {
	return c.cookie(epoch(now), spii, ni, remote)
}

// Check tells whether cookie is one that Make returned for the same initiator
// not long ago. Its time does not depend on how far the two agree.
func (c *Cookies) Check(now mono.Time, cookie []byte, spii uint64, ni []byte, remote netip.AddrPort) bool {
	if len(cookie) != cookieLen {
		return false
	}
	e := epoch(now)
	if cookie[0] == uint8(e-1) {
		e--
	}
	return hmac.Equal(cookie, c.cookie(e, spii, ni, remote))
}

// Around are the cookies that an initiator may have been given who was let in at
// a time: those of the secret then, of the next and of the two before.
func (c *Cookies) Around(at mono.Time, spii uint64, ni []byte, remote netip.AddrPort) (all [][]byte) {
	for e := max(epoch(at), 2) - 2; e <= epoch(at)+1; e++ {
		all = append(all, c.cookie(e, spii, ni, remote))
	}
	return all
}

// epoch numbers the secrets.
func epoch(now mono.Time) uint64 { return uint64(now) / uint64(rotation) }

// cookie is the one of an epoch. Each has its own secret, derived from the
// seed. All but the nonce have a fixed length, and the nonce comes last, so no
// two initiators hash the same bytes.
func (c *Cookies) cookie(e uint64, spii uint64, ni []byte, remote netip.AddrPort) []byte {
	addr := remote.Addr().As16()
	who := binary.BigEndian.AppendUint64(make([]byte, 0, 8+16+2+len(ni)), spii)
	who = append(who, addr[:]...)
	who = binary.BigEndian.AppendUint16(who, remote.Port())
	who = append(who, ni...)
	out := make([]byte, 1, 1+sha256.Size)
	out[0] = uint8(e)
	return sum(out, c.secret(e).key[:], who)[:cookieLen]
}

func (c *Cookies) secret(e uint64) *secret {
	if s := c.latest.Load(); s != nil && s.epoch == e {
		return s
	}
	s := &secret{epoch: e}
	sum(s.key[:0], c.seed[:], binary.BigEndian.AppendUint64(nil, e))
	c.latest.Store(s)
	return s
}

// sum appends the HMAC of data.
func sum(dst, key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(dst)
}
