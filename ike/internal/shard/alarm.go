package shard

import (
	"context"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	// alarmUnauthenticated says that ESP comes and none of it is authentic: the
	// keys are out of step, or somebody forges.
	alarmUnauthenticated = "unauthenticated"
	// alarmFor is how long after the last such packet that is told.
	alarmFor = time.Minute
	// lookAgain is more than a packet takes from XDP to the data plane.
	lookAgain = 100 * time.Millisecond
)

// alarm compares what was seen of an SA's ESP with what was authenticated; since
// is when the SA began. IKE does not silence it: a peer may live, and answer,
// while all of his ESP is refused.
func alarm(now, since mono.Time, ev dpd.Evidence, delay time.Duration) string {
	if ev.Seen > max(ev.Auth, since).Add(delay) && now.Sub(ev.Seen) <= alarmFor {
		return alarmUnauthenticated
	}
	return ""
}

// confirm looks again at those with an alarm, and takes it back where a packet
// had passed XDP, the first for long, that the data plane had not come to yet.
func (g *Group) confirm(ctx context.Context, peers []Peer) error {
	waited := false
	for i := range peers {
		p := &peers[i]
		if p.Alarm == "" {
			continue
		}
		if !waited {
			select {
			case <-time.After(lookAgain):
			case <-ctx.Done():
				return ctx.Err()
			}
			waited = true
		}
		s := g.shards[p.Shard]
		now, err := ask(ctx, s, func(now mono.Time) []Peer { return s.describe(now, []uint64{p.spi}) })
		if err != nil {
			return err
		}
		if len(now) == 1 {
			*p = now[0]
		}
	}
	return nil
}
