package gateway

import (
	"net/netip"
	"runtime"
	"runtime/metrics"

	"github.com/ikepulse/ikepulse/ike"
)

// The states of an instance.
const (
	Healthy    = "healthy"
	Degraded   = "degraded"
	NotRunning = "not running"
	Following  = "following" // beside another daemon
)

// Status is an instance at one moment, as its daemon tells it or, without one,
// as its pins do. Instants are given as ages.
type Status struct {
	Instance string   `json:"instance"`
	State    string   `json:"state"`
	Problems []string `json:"problems"` // why it is degraded, and what to do
	*Daemon           // nil when it is not running
	XDP      *XDP     `json:"xdp,omitempty"` // nil when nothing is loaded
}

// Daemon is what a running daemon tells of itself.
type Daemon struct {
	Version   string     `json:"version"`
	PID       int        `json:"pid"`
	Process   Process    `json:"process"`
	Dataplane Dataplane  `json:"dataplane"`
	Barriers  Barriers   `json:"barriers"`
	IKE       ike.Status `json:"ike"`
	Capacity  int        `json:"capacity"`  // tunnels that the maps are made for
	Untracked int        `json:"untracked"` // SPIs that the maps have no slot for
	Sockets   []Socket   `json:"sockets"`
	XDPEvents *Events    `json:"xdp_events,omitempty"` // nil without XDP
	// Left is where an earlier run's program goes on beside a daemon that
	// cannot use it.
	Left []Attachment `json:"left,omitempty"`
}

// Process is what the daemon takes of its host: where one of these grows and
// the tunnels do not, something leaks.
type Process struct {
	HeapBytes  uint64 `json:"heap_bytes"` // in use at the last collection
	Goroutines int    `json:"goroutines"`
}

func describeProcess() Process {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	p := Process{Goroutines: runtime.NumGoroutine()}
	if live[0].Value.Kind() == metrics.KindUint64 {
		p.HeapBytes = live[0].Value.Uint64()
	}
	return p
}

// Socket is what came and went by one local address and port since the start.
type Socket struct {
	Local      netip.AddrPort `json:"local"`
	IKE        uint64         `json:"ike"`
	ESP        uint64         `json:"esp"`
	Keepalives uint64         `json:"keepalives"` // that XDP did not take
	Short      uint64         `json:"short"`
	ReadErrors uint64         `json:"read_errors"`
	Sent       uint64         `json:"sent"`
	SendErrors uint64         `json:"send_errors"`
}

// Peer is an IKE SA with the keepalives of its address.
type Peer struct {
	ike.Peer
	*Keepalives // nil when the maps do not know the address
}
