package shard

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

const (
	// mostLookups is how many connections' names are resolved at once.
	mostLookups = 32
	// lookupTime is how long one name may take.
	lookupTime = 10 * time.Second
	// mostAnswers is how many addresses of one name are looked at.
	mostAnswers = 16
)

// named reports whether a connection's peer is to be resolved.
func named(c *policy.Connection) bool {
	return slices.ContainsFunc(c.Hosts, func(h policy.Host) bool { return h.Name != "" })
}

// addressesOf are those of a connection's peer that has no names.
func addressesOf(c *policy.Connection) (out []netip.Addr) {
	for _, h := range c.Hosts {
		out = append(out, h.Addr)
	}
	return out
}

// lookup is a call that waits for the peer's addresses.
type lookup struct {
	shard *Shard
	dial  *dialer
}

// lookups resolves names, so that no loop waits for it. Each connection has one
// lookup at a time, and so the queue has room for all.
//
// What comes back is anybody's word: DNS is not authenticated, and whoever runs
// the network may answer as he likes. It decides where our first message goes,
// and nothing else; the peer there proves who he is, or gets no tunnel. So an
// answer is no reason to let an address through the barriers, or to take a call
// from it.
type lookups struct {
	conf  *Config
	named int
	queue chan lookup
}

func newLookups(c *Config) *lookups {
	l := &lookups{conf: c}
	for _, conn := range c.Policy.Connections {
		if named(conn) {
			l.named++
		}
	}
	l.queue = make(chan lookup, l.named)
	return l
}

// most is how many goroutines are to run.
func (l *lookups) most() int { return min(l.named, mostLookups) }

// ask has the names of a dialer resolved that has no answer to come.
func (l *lookups) ask(s *Shard, d *dialer) { l.queue <- lookup{s, d} }

// run resolves until ctx ends.
func (l *lookups) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-l.queue:
			to, err := l.addresses(ctx, q.dial.conn)
			q.shard.post(func(now mono.Time) { q.shard.dialers.resolved(now, q.dial, to, err) })
		}
	}
}

// addresses are those where a connection's peer may be called, in the order of its
// hosts. What is wrong with one name matters if there is nothing else.
func (l *lookups) addresses(ctx context.Context, c *policy.Connection) (to []netip.Addr, wrong error) {
	for _, h := range c.Hosts {
		if h.Name == "" {
			to = append(to, h.Addr)
			continue
		}
		found, err := l.resolve(ctx, c, h.Name)
		to = append(to, found...)
		if wrong == nil {
			wrong = err
		}
	}
	if len(to) > 0 {
		wrong = nil
	}
	return to, wrong
}

// resolve gives the addresses of a name that can be called, and at least one or
// an error.
func (l *lookups) resolve(ctx context.Context, c *policy.Connection, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := l.conf.Edges.Resolve(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("cannot resolve %s: %w", name, err)
	}
	var to []netip.Addr
	for _, a := range found[:min(len(found), mostAnswers)] {
		if a = a.Unmap(); l.conf.callable(c, a) && !slices.Contains(to, a) {
			to = append(to, a)
		}
	}
	if len(to) == 0 {
		return nil, fmt.Errorf("cannot call %s: it has no address that can be a peer's, of a family that we listen on", name)
	}
	return to, nil
}

// callable reports whether an address that a name has can be that of a peer. One
// that a tunnel covers can be: what we send there stays outside, and with a
// tunnel to everywhere or to the peer alone each right answer is such a one.
func (c *Config) callable(conn *policy.Connection, a netip.Addr) bool {
	return a.IsGlobalUnicast() && !slices.Contains(c.Listen, a) &&
		slices.ContainsFunc(c.from(conn), func(ours netip.Addr) bool { return ours.Unmap().Is4() == a.Is4() })
}
