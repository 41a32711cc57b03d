package control

import (
	"fmt"
	"sync"
)

// Limits of connections. A request has one of its own, and events one for as
// long as they are read.
const (
	maxTrusted = 64 // root's and the daemon's own user's, whatever the others have
	maxOthers  = 64
	maxPerUser = 16
	maxRefused = 16 // that are told why; more are closed without a word
)

// gate counts the connections that are open.
type gate struct {
	mu      sync.Mutex
	trusted int
	others  int
	users   map[uint32]int // by uid, of the others
}

// enter counts a connection until leave is called, or says why there may be no
// more.
func (g *gate) enter(uid uint32, trusted bool) (leave func(), refusal string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case trusted && g.trusted == maxTrusted:
		return nil, fmt.Sprintf("root has %d connections to this socket, and that is all there may be", maxTrusted)
	case trusted:
		g.trusted++
	case g.users[uid] == maxPerUser:
		return nil, fmt.Sprintf("user %d has %d connections to this socket, and that is all a user may have", uid, maxPerUser)
	case g.others == maxOthers:
		return nil, fmt.Sprintf("%d connections to this socket are open, and that is all there may be but for root", maxOthers)
	default:
		g.others++
		g.users[uid]++
	}
	return sync.OnceFunc(func() { g.leave(uid, trusted) }), ""
}

func (g *gate) leave(uid uint32, trusted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if trusted {
		g.trusted--
		return
	}
	g.others--
	if g.users[uid]--; g.users[uid] == 0 {
		delete(g.users, uid)
	}
}
