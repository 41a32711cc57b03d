package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ikepulse/ikepulse/ike/udp"
)

// resolver asks the name servers of this host, and looks into /etc/hosts, each
// time anew. Its questions go beside the tunnels, as our IKE does: a tunnel that
// covers the name servers could else never come up, since it takes an answer of
// theirs to call the peer.
type resolver struct {
	names  net.Resolver
	log    *slog.Logger
	behind bool // the tunnels cover whom a resolver of this host asks

	mu     sync.Mutex
	wrong  map[string]string // by name: what the log says of it
	spoken time.Time
}

// linePause bounds what names that come and go write into the log. What is not
// said is said at a later call, if it is still so.
const linePause = 10 * time.Second

func newResolver(mark uint32, behind bool, log *slog.Logger) *resolver {
	dialer := net.Dialer{Control: udp.Outside(mark)}
	// The resolver of libc would open sockets of its own.
	return &resolver{names: net.Resolver{PreferGo: true, Dial: dialer.DialContext}, log: log, behind: behind, wrong: map[string]string{}}
}

// addresses are those that a name has now.
func (r *resolver) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	found, err := r.names.LookupNetIP(ctx, "ip", name)
	if r.behind {
		err = byTunnel(err)
	} else {
		err = briefly(err)
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // we are stopping
		r.tell(name, err, time.Now())
	}
	return found, err
}

// briefly says what is wrong without the name, which the caller knows.
func briefly(err error) error {
	var d *net.DNSError
	switch {
	case !errors.As(err, &d):
		return err
	case d.IsTimeout && d.Server != "":
		return errors.New("no answer from " + d.Server)
	case d.IsTimeout:
		return errors.New("no answer")
	}
	return errors.New(d.Err)
}

// tell writes into the log what has changed.
func (r *resolver) tell(name string, err error, now time.Time) {
	what := ""
	if err != nil {
		what = oneLine(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong[name] == what || now.Sub(r.spoken) < linePause {
		return
	}
	r.wrong[name], r.spoken = what, now
	if err != nil {
		r.log.Warn("the name of a peer cannot be resolved; it is tried again", "name", name, "error", what)
		return
	}
	r.log.Info("the name of a peer is resolved again", "name", name)
}
