package ike

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// link is a network without loss between gateways, each with the least of
// edges behind it.
type link struct {
	mu    sync.Mutex
	began time.Time
	ends  map[netip.Addr]*end
}

// end is one gateway and its edges.
type end struct {
	link    *link
	gateway *Gateway
	logs    *bytes.Buffer // under link.mu
	stop    func()

	spi    uint32
	held   int // SPIs, children and addresses that are not given back
	events <-chan Event
}

func (e *end) add(n int) {
	e.link.mu.Lock()
	defer e.link.mu.Unlock()
	e.held += n
}

func (e *end) Track(uint32, netip.AddrPort, netip.AddrPort, bool) error { e.add(1); return nil }
func (e *end) Untrack(uint32, netip.AddrPort, netip.AddrPort) error     { e.add(-1); return nil }
func (e *end) Evidence(uint32) (seen, auth int64)                       { return 0, 0 }
func (e *end) InstallInbound(*ChildSA) error                            { e.add(1); return nil }
func (e *end) InstallOutbound(*ChildSA) error                           { e.add(1); return nil }
func (e *end) MoveOutbound(uint32, uint32, Path) error                  { return nil }
func (e *end) RemoveOutbound(uint32, uint32) error                      { e.add(-1); return nil }
func (e *end) RemoveInbound(uint32, uint32) error                       { e.add(-1); return nil }
func (e *end) LastSent(uint32) int64                                    { return 0 }
func (e *end) Receive(int64, Packet) bool                               { return false }
func (e *end) Transmit(int64, []byte)                                   {}
func (e *end) Move(uint32, netip.AddrPort, netip.AddrPort, netip.AddrPort, netip.AddrPort, bool) error {
	return errors.New("nobody moves here")
}

func (e *end) Send(p Packet) error {
	p.Data = bytes.Clone(p.Data)
	e.link.mu.Lock()
	to := e.link.ends[p.Remote.Addr()]
	e.link.mu.Unlock()
	if to == nil {
		return errors.New("nobody is there")
	}
	p.Local, p.Remote = p.Remote, p.Local
	time.AfterFunc(time.Millisecond, func() { to.gateway.Deliver([]Packet{p}, nil) })
	return nil
}

func (e *end) Write(b []byte) (int, error) {
	e.link.mu.Lock()
	defer e.link.mu.Unlock()
	return e.logs.Write(b)
}

func (e *end) edges() Edges {
	return Edges{Tracker: e, DataPlane: func(int) DataPlane { return e }, Sender: e,
		AllocSPI: func(int) func(int64) (uint32, bool) {
			return func(int64) (uint32, bool) { e.add(1); e.spi += 1 << 22; return e.spi, true }
		},
		FreeSPI:  func(int) func(uint32, int64) { return func(uint32, int64) { e.add(-1) } },
		ESPShard: func(uint32) int { return 0 },
		Clock:    func() int64 { return int64(time.Hour + time.Since(e.link.began)) },
		Logger: slog.New(slog.NewTextHandler(e, &slog.HandlerOptions{Level: slog.LevelDebug,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}})),
	}
}

// end starts a gateway.
func (l *link) end(t *testing.T, c Config) *end {
	t.Helper()
	e := &end{link: l, logs: &bytes.Buffer{}}
	var err error
	if e.gateway, err = New(c, e.edges()); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.ends[c.Addresses[0]] = e
	l.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	e.events = e.gateway.Events(context.Background())
	ended := make(chan error)
	go func() { ended <- e.gateway.Run(ctx) }() // ends with stop
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(e.stop)
	return e
}

func inBubble(t *testing.T, f func(t *testing.T, l *link)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, &link{began: time.Now(), ends: map[netip.Addr]*end{}})
	})
}

var (
	gatewayAddr = netip.MustParseAddr("198.51.100.1")
	clientAddr  = netip.MustParseAddr("10.7.0.2")
)

func gatewayConfig() Config {
	return Config{Addresses: []netip.Addr{gatewayAddr}, Shards: 2, Capacity: 100,
		Connections: []Connection{{Name: "roadwarriors", LocalID: "vpn.example.org", RemoteID: "*@example.org",
			Proposals: []string{"aes256gcm16-prfsha256-x25519"}, ESPProposals: []string{"aes256gcm16-esn"}, Pools: []string{"office"},
			DPD: DPD{Mode: "idle", Delay: 30 * time.Second},
			Child: Child{Name: "net", LocalTS: []Selector{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), ToPort: 65535}},
				RemoteTS: []Selector{{Dynamic: true}}}}},
		Pools:   []Pool{{Name: "office", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}}},
		Secrets: []Secret{{ID: "anna@example.org", PSK: []byte(testPSK)}}}
}

const testPSK = "a secret of the two, long enough"

func clientConfig() Config {
	return Config{Addresses: []netip.Addr{clientAddr}, Shards: 1, Capacity: 10,
		Connections: []Connection{{Name: "home", LocalID: "anna@example.org", RemoteID: "vpn.example.org",
			Hosts: []Host{{Addr: gatewayAddr}}, Proposals: []string{"aes256gcm16-prfsha256-x25519"},
			ESPProposals: []string{"aes256gcm16-esn"}, VirtualIPs: []netip.Addr{netip.IPv4Unspecified()}, DPD: DPD{Mode: "off"},
			Child: Child{Name: "net", LocalTS: []Selector{{Dynamic: true}},
				RemoteTS: []Selector{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), ToPort: 65535}}}}},
		Secrets: []Secret{{ID: "vpn.example.org", PSK: []byte(testPSK)}}}
}
