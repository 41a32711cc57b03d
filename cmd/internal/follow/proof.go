package follow

import (
	"github.com/ikepulse/ikepulse/ike/xfrm"
)

// Why packets that XDP sees do not count as authenticated.
const (
	whyIntegrity = "the integrity check fails: other keys, or somebody forges"
	whyReplay    = "they are replayed, or older than the window"
	whyUnseen    = "the kernel authenticates packets that XDP does not see: is it on the right interface?"
	whyUncounted = "the kernel counts none of them: no socket takes ESP in UDP, or a filter drops them"
)

// proof is what one SA has shown: packets that XDP sees are a hint, what the
// kernel's counters say of them is proof. Times are CLOCK_BOOTTIME, ns; it
// reads no clock.
type proof struct {
	auth int64  // last authenticated packet, never overstated; 0: none
	why  string // the alarm: packets are seen, and none authenticates

	looked   int64 // when the counters were read last
	counters xfrm.Counters
	seen     uint32 // XDP's tick at that time

	strikes int           // looks that saw packets and no proof, in a row
	before  xfrm.Counters // the counters before the first of them
	unseen  int           // looks that saw proof and no packet for long, in a row
}

// strikesForAlarm: a packet may have passed XDP and not yet the kernel's IPsec
// when both are looked at. It then counts at the next look; a second one in
// which others have come and still none counts is no coincidence.
const strikesForAlarm = 2

// looksForUnseen: a packet that came long after it had passed XDP, since
// something held it, is no sign that XDP is blind. It comes once.
const looksForUnseen = 3

// unseenAll tells that packets are proved again and again, and XDP sees none.
func (p *proof) unseenAll() bool { return p.unseen >= looksForUnseen }

// begin takes the counters of an SA that is met for the first time, as they were
// at looked or later. What they have counted so far happened at used at the
// earliest known; 0: never.
func (p *proof) begin(looked int64, seen uint32, c xfrm.Counters, used int64) {
	*p = proof{looked: looked, seen: seen, counters: c}
	if c.Packets > 0 {
		p.auth = min(used, looked)
	}
}

// look compares XDP's tick with the kernel's counters. stale says that the tick
// has long been over. used is when the kernel says that the last packet came, 0
// if it does not say.
func (p *proof) look(now int64, seen uint32, stale bool, c xfrm.Counters, used int64) {
	arrived := seen != p.seen
	switch {
	case arrived || !stale:
		p.unseen = 0
	case c.Packets > p.counters.Packets:
		p.unseen++
	}
	switch {
	case c.Packets > p.counters.Packets:
		// Without the kernel's word it may have been right after the last look.
		p.auth = max(p.auth, min(max(used, p.looked), now))
		p.strikes, p.why = 0, ""
	case c.Packets < p.counters.Packets:
		p.strikes = 0 // the state was replaced by one that begins anew
	case arrived:
		if p.strikes == 0 {
			p.before = p.counters
		}
		if p.strikes++; p.strikes >= strikesForAlarm {
			p.why = why(p.before, c)
		}
	}
	p.looked, p.counters, p.seen = now, c, seen
}

func why(before, now xfrm.Counters) string {
	switch {
	case now.IntegrityFailed > before.IntegrityFailed:
		return whyIntegrity
	case now.Replayed > before.Replayed:
		return whyReplay
	}
	return whyUncounted
}
