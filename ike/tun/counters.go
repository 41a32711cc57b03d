package tun

import (
	"errors"
	"sync/atomic"

	"github.com/ikepulse/ikepulse/ike/esp"
)

// Counters are what the data plane has counted: packets, by what became of
// them, and the bytes of inner packets.
type Counters struct {
	In, InBytes   uint64
	Out, OutBytes uint64

	// Inbound, dropped. Of these Selector, Dummy, Malformed and ECN may be
	// authentic.
	UnknownSPI, Replay, ICV, Selector, Dummy, Malformed, ECN uint64

	NoTunnel  uint64 // outbound: no tunnel was agreed for it
	Exhausted uint64 // outbound: the tunnel has no sequence number left

	DeviceErrors, SendErrors uint64
}

type counters struct {
	in, inBytes, out, outBytes                            atomic.Uint64
	unknown, replay, icv, selector, dummy, malformed, ecn atomic.Uint64
	noTunnel, exhausted, deviceErrors, sendErrors         atomic.Uint64
}

// refused is the counter for an error of Open.
func (c *counters) refused(err error) *atomic.Uint64 {
	for _, k := range []struct {
		err   error
		count *atomic.Uint64
	}{
		{esp.ErrReplay, &c.replay}, {esp.ErrICV, &c.icv}, {esp.ErrSelector, &c.selector},
		{esp.ErrDummy, &c.dummy}, {esp.ErrECN, &c.ecn},
	} {
		if errors.Is(err, k.err) {
			return k.count
		}
	}
	return &c.malformed
}

// refusedOut is the counter for an error of Seal.
func (c *counters) refusedOut(err error) *atomic.Uint64 {
	if errors.Is(err, esp.ErrSequence) {
		return &c.exhausted
	}
	return &c.malformed
}

// Counters sums the counters of all shards. Any goroutine may call it.
func (p *Plane) Counters() Counters {
	p.mu.RLock()
	defer p.mu.RUnlock()
	sum := Counters{NoTunnel: p.noTunnel.Load(), Malformed: p.malformed.Load(), DeviceErrors: p.readErrors.Load()}
	for _, s := range p.shards {
		s.count.addTo(&sum)
	}
	return sum
}

func (c *counters) addTo(sum *Counters) {
	for _, k := range []struct {
		to   *uint64
		from *atomic.Uint64
	}{
		{&sum.In, &c.in}, {&sum.InBytes, &c.inBytes}, {&sum.Out, &c.out}, {&sum.OutBytes, &c.outBytes},
		{&sum.UnknownSPI, &c.unknown}, {&sum.Replay, &c.replay}, {&sum.ICV, &c.icv}, {&sum.Selector, &c.selector},
		{&sum.Dummy, &c.dummy}, {&sum.Malformed, &c.malformed}, {&sum.ECN, &c.ecn},
		{&sum.NoTunnel, &c.noTunnel}, {&sum.Exhausted, &c.exhausted},
		{&sum.DeviceErrors, &c.deviceErrors}, {&sum.SendErrors, &c.sendErrors},
	} {
		*k.to += k.from.Load()
	}
}
