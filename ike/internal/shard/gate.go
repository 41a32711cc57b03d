package shard

import (
	"net/netip"
	"sync"

	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// gate is what strangers are measured by, over all shards: a limit split among
// shards would be another for each number of them. It is behind a lock and not
// a message away, because a first message is to leave nothing behind that could
// wait for an answer; the lock is held for some 100 ns.
type gate struct {
	cookies *halfopen.Cookies // needs no lock

	mu      sync.Mutex
	limits  *halfopen.Limits
	replies *halfopen.Replies
}

func (g *gate) admit(from netip.Addr, proven bool) halfopen.Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limits.Admit(from, proven)
}

func (g *gate) done(from netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits.Done(from)
}

func (g *gate) mayAnswer(now mono.Time, to netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.replies.Allow(now, to)
}

func (g *gate) halfOpen() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limits.Total()
}

// proven tells that an IKE_SA_INIT request bears a cookie of ours, so that its
// sender receives what is sent to its address.
func (g *gate) proven(now mono.Time, m *wire.Message, from netip.AddrPort) bool {
	cookie, ok := wire.FindNotify(m.Payloads, wire.Cookie)
	nonce, okNonce := wire.Find[*wire.Nonce](m.Payloads)
	return ok && okNonce && g.cookies.Check(now, cookie.Data, m.SPIi, nonce.Data, from)
}
