package halfopen

import (
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// replyWindow is the second that both limits of Replies are counted in.
const replyWindow = time.Second

// Replies limits answers that no SA stands behind, like INVALID_IKE_SPI
// (RFC 7296 §1.5, §2.21.4): so many in any second, and of those at most one to
// a source. To know that, it needs to remember no more than the answers of the
// last second, so its memory is the global limit; there is no table to flood.
// It is owned by one goroutine.
type Replies struct {
	recent []reply // a ring, oldest at next
	next   int
}

type reply struct {
	at mono.Time
	to source
}

// RepliesPerSecond is the default for all sources together.
const RepliesPerSecond = 100

// NewReplies returns a limiter of so many answers a second.
func NewReplies(perSecond int) *Replies {
	return &Replies{recent: make([]reply, perSecond)}
}

// Allow tells whether an answer may go out now, and counts it.
func (r *Replies) Allow(now mono.Time, remote netip.Addr) bool {
	if len(r.recent) == 0 || r.recent[r.next].counts(now) {
		return false
	}
	to := sourceOf(remote)
	for _, old := range r.recent {
		if old.to == to && old.counts(now) {
			return false
		}
	}
	r.recent[r.next] = reply{now, to}
	r.next = (r.next + 1) % len(r.recent)
	return true
}

// counts tells whether r went out within the last second.
func (r reply) counts(now mono.Time) bool {
	return r.at != 0 && now.Sub(r.at) < replyWindow
}
