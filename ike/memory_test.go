package ike

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What an established SA may hold on the heap, all of the IKE side's tables,
// leases and timers with it: as soon as it is up, and once its last response is
// no longer kept. Measured: 2,683 and 2,299 bytes.
const (
	freshBudget   = 3000
	settledBudget = 2500
)

// TestHeapPerSA: what a gateway holds for each of its SAs, as the difference
// between few and many, is within the budget, and is no goroutine.
func TestHeapPerSA(t *testing.T) {
	const few, many = 2000, 10000
	inBubble(t, func(t *testing.T, l *link) {
		c := newCrowd(t, l, many)
		c.come(t, 0, few)
		time.Sleep(10 * time.Minute)
		less, goroutines := c.heap(), runtime.NumGoroutine()

		c.come(t, few, many)
		c.within(t, "fresh", c.heap()-less, many-few, freshBudget)
		time.Sleep(10 * time.Minute)
		c.within(t, "settled", c.heap()-less, many-few, settledBudget)
		if n := runtime.NumGoroutine(); n != goroutines {
			t.Errorf("%d goroutines for %d SAs, %d for %d", goroutines, few, n, many)
		}
		if st, err := c.gateway.Status(context.Background()); err != nil || st.Up != many || st.Leases["office"] != many {
			t.Errorf("%d are up with %d leases, %v", st.Up, st.Leases["office"], err)
		}
	})
}

// crowd is a gateway, and peers that go without a word once they are up, so that
// the heap has nobody's SAs but the gateway's.
type crowd struct {
	link    *link
	gateway *Gateway

	mu    sync.Mutex
	peers *Gateway // nil: they are gone
}

func newCrowd(t *testing.T, l *link, capacity int) *crowd {
	t.Helper()
	c := &crowd{link: l}
	conf := gatewayConfig()
	conf.Capacity, conf.Secrets[0].ID, conf.Connections[0].DPD.Mode = capacity, "*@example.org", "off"
	var err error
	if c.gateway, err = New(conf, c.edges(c.toPeers)); err != nil {
		t.Fatal(err)
	}
	run(t, c.gateway)
	return c
}

// run runs a gateway until the function that it returns is called, or the test
// ends.
func run(t *testing.T, g *Gateway) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.Run(ctx) }) // ends with stop; it returns no error
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// edges are the least that a gateway can have.
func (c *crowd) edges(send func(Packet) error) Edges {
	e := (&end{link: c.link}).edges()
	e.Logger, e.Sender = nil, sender(send)
	spi := uint32(0)
	e.AllocSPI = func(int) func(int64) (uint32, bool) {
		return func(int64) (uint32, bool) {
			c.mu.Lock()
			defer c.mu.Unlock()
			spi++
			return 1<<22 | spi, true
		}
	}
	return e
}

type sender func(Packet) error

func (s sender) Send(p Packet) error { return s(p) }

func (c *crowd) toPeers(p Packet) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers == nil {
		return errors.New("nobody is there")
	}
	carry(p, c.peers)
	return nil
}

func (c *crowd) toGateway(p Packet) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers != nil {
		carry(p, c.gateway)
	}
	return nil
}

// carry brings a packet to its receiver a little later.
func carry(p Packet, to *Gateway) {
	p.Data = bytes.Clone(p.Data)
	p.Local, p.Remote = p.Remote, p.Local
	time.AfterFunc(time.Millisecond, func() { to.Deliver([]Packet{p}, nil) })
}

// come brings the peers of those numbers up, each with an identity and an
// address of its own. Then they are gone.
func (c *crowd) come(t *testing.T, from, to int) {
	t.Helper()
	conf := clientConfig()
	conn := conf.Connections[0]
	conf.Capacity, conf.Connections = to-from, nil
	for i := from; i < to; i++ {
		conn.Name, conn.LocalID = fmt.Sprint(i), fmt.Sprintf("%d@example.org", i)
		conn.LocalAddresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 7, byte(i >> 8), byte(i)})}
		conf.Connections = append(conf.Connections, conn)
	}
	peers, err := New(conf, c.edges(c.toGateway))
	if err != nil {
		t.Fatal(err)
	}
	c.setPeers(peers)
	stop := run(t, peers)
	for i := from; i < to; i += 100 { // fewer than cookies are demanded of
		var calls sync.WaitGroup
		for n := i; n < min(i+100, to); n++ {
			calls.Go(func() {
				if err := peers.Initiate(context.Background(), fmt.Sprint(n)); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
	}
	c.setPeers(nil)
	stop()
}

func (c *crowd) setPeers(g *Gateway) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peers = g
}

// heap is what is in use when nobody has anything to do.
func (c *crowd) heap() uint64 {
	synctest.Wait()
	runtime.GC()
	runtime.GC() // what had a finalizer
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (c *crowd) within(t *testing.T, what string, growth uint64, sas, budget int) {
	t.Helper()
	each := int64(growth) / int64(sas)
	t.Logf("%s: %d B on the heap for each of %d SAs, %d are allowed", what, each, sas, budget)
	if each > int64(budget) || each < 1000 { // less than the SA itself has
		t.Errorf("%s: %d B on the heap for each of %d SAs, want at most %d", what, each, sas, budget)
	}
}
