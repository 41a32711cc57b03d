package sa

import "github.com/ikepulse/ikepulse/ike/internal/mono"

// Again begins the tries of the outstanding request anew, for what was sent so far
// cannot all have left this host.
type Again struct{}

func (Again) command() {}

func (s *SA) again(now mono.Time, out *Effects) {
	if !s.Outstanding() {
		return
	}
	s.req.try, s.req.unsent = 0, false
	s.tryAt = now.Add(s.rec.Conn.Backoff.Wait(0))
	s.resend(now, out)
}
