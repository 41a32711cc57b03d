package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/ikepulse/ikepulse/test/lab"
)

// flood sends spoofed first messages from a namespace of its own.
type flood struct {
	ns   *lab.Namespace
	conn *ipv4.RawConn
	rate int
	quit chan struct{}
	done chan error
	sent atomic.Uint64 // messages
	from time.Time
}

// floodBatch is the most that is sent at once, and floodPause the time between:
// so many that a missed turn is made up for.
const (
	floodBatch = 256
	floodPause = time.Millisecond
)

func startFlood(ns *lab.Namespace, rate int) (*flood, error) {
	f := &flood{ns: ns, rate: rate, quit: make(chan struct{}), done: make(chan error, 1)}
	err := ns.Do(func() error {
		const raw = "ip4:255" // IPPROTO_RAW
		conn, err := net.ListenPacket(raw, "0.0.0.0")
		if err != nil {
			return err
		}
		f.conn, err = ipv4.NewRawConn(conn)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the flood: %w", err)
	}
	f.from = time.Now()
	go func() { f.done <- f.run() }() // ends with stop
	return f, nil
}

// run sends as many as there should have been by now. It has a thread to itself.
func (f *flood) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := rand.NewChaCha8([32]byte{})
	to := &net.IPAddr{IP: gatewayAddr.AsSlice()}
	batch := make([]ipv4.Message, floodBatch)
	for i := range batch {
		batch[i] = ipv4.Message{Buffers: [][]byte{newFirst()}, Addr: to}
	}
	for tick := time.NewTicker(floodPause); ; {
		select {
		case <-f.quit:
			tick.Stop()
			return nil
		case <-tick.C:
		}
		due := int(time.Since(f.from).Seconds()*float64(f.rate)) - int(f.sent.Load())
		if err := f.send(batch[:min(max(due, 0), floodBatch)], r); err != nil {
			return err
		}
	}
}

func (f *flood) send(batch []ipv4.Message, r *rand.ChaCha8) error {
	for _, m := range batch {
		renew(m.Buffers[0], r)
	}
	for len(batch) > 0 {
		n, err := f.conn.WriteBatch(batch, 0)
		if err != nil {
			return err
		}
		f.sent.Add(uint64(n))
		batch = batch[n:]
	}
	return nil
}

// stop ends it, and returns how many a second there were.
func (f *flood) stop() (perSecond float64, err error) {
	close(f.quit)
	err = <-f.done
	perSecond = float64(f.sent.Load()) / time.Since(f.from).Seconds()
	return perSecond, errors.Join(err, f.conn.Close())
}

// exchanged is what the flood has sent and what has come back, in packets and in
// bytes of IP, by the counters of its link.
type exchanged struct {
	Sent     uint64 `json:"sent"`
	BytesIn  uint64 `json:"bytes_in"` // the gateway's side of it
	Answers  uint64 `json:"answers"`
	BytesOut uint64 `json:"bytes_out"`
}

func (f *flood) exchanged() (e exchanged, err error) {
	const ethernet = 14
	t, err := traffic(f.ns, "f0")
	e = exchanged{Sent: f.sent.Load(), Answers: t.RxPackets, BytesOut: t.RxBytes - ethernet*t.RxPackets}
	e.BytesIn = e.Sent * firstSize
	return e, err
}
