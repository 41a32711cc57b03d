package gateway

import (
	"fmt"
	"strings"
)

// Barriers are what keeps covered packets from leaving and entering in the clear.
type Barriers struct {
	Unprotected string   `json:"unprotected"`       // "block" or "pass"
	Kinds       []string `json:"kinds"`             // those that there are to be; none with "pass"
	Networks    int      `json:"networks"`          // that tunnels cover
	Missing     []string `json:"missing,omitempty"` // what somebody has taken away
	Hidden      []string `json:"hidden,omitempty"`  // attached networks that a tunnel covers
	Unheard     []string `json:"unheard,omitempty"` // name servers whose answers are dropped while the tunnel is down
}

// problems says what is not as it should be.
func (b *Barriers) problems() (all []string) {
	for _, what := range b.Missing {
		all = append(all, "a barrier against packets in the clear is gone: "+what)
	}
	if len(b.Unheard) > 0 {
		servers := strings.Join(b.Unheard, ", ")
		all = append(all, fmt.Sprintf("this kernel has no nft_socket, by which we would hear %s, whom a tunnel covers: names of peers are not found while that is down; bypass: [%s]", servers, servers))
	}
	return append(all, b.Hidden...)
}

// survey takes down for status how things are.
func (g *guard) survey() {
	b := Barriers{Unprotected: "block", Networks: g.plan.Networks()}
	if g.covers.Pass {
		b.Unprotected = "pass"
	}
	for _, p := range g.posts {
		b.Kinds = append(b.Kinds, p.kind)
		if p.gone != "" {
			b.Missing = append(b.Missing, p.gone)
		}
	}
	for _, h := range g.plan.Hidden {
		b.Hidden = append(b.Hidden, hiddenText(h))
	}
	b.Unheard = g.unheard(nameServers(resolvConf))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = b
}

// status is as of the last look.
func (g *guard) status() Barriers {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}
