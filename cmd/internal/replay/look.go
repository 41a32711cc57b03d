package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/cmd/internal/pcap"
)

// mostEntries is how many SAs, and how many addresses, are registered at most:
// as many as a gateway can have.
const mostEntries = 1 << bpf.SlotBits

// found is what the options and a first look at the capture say.
type found struct {
	frames int   // that can be read
	damage error // why there are no more; nil: the capture ends there
	locals map[netip.Addr]bool
	sas    map[SA]bool
}

// look reads the whole capture: everything is registered before the first
// frame is run.
func look(ctx context.Context, capture io.Reader, o Options, most int) (*found, error) {
	all := &found{locals: map[netip.Addr]bool{}, sas: map[SA]bool{}}
	for _, address := range o.Locals {
		all.locals[address.Unmap()] = true
	}
	for _, sa := range o.SAs {
		all.sas[sa] = true
	}
	frames, err := pcap.NewReader(capture)
	if err != nil {
		return nil, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		frame, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			all.damage = err
			return all, nil
		}
		all.frames = frame.Number
		in, captured, err := wire(frame)
		if err != nil {
			continue // the line of it will say why
		}
		// What was cut off would be addresses and SPIs that nobody sent.
		all.add(inspect(in[:captured], o.nattPort()), o)
		if n := max(len(all.locals), len(all.sas)); n > most {
			return nil, fmt.Errorf("frame %d: more than %d addresses or SPIs to register", frame.Number, most)
		}
	}
}

// add takes what a frame is addressed to, as far as the options say. An SA is
// inbound if its destination is ours.
func (all *found) add(to target, o Options) {
	if len(o.Locals) == 0 && to.dst.IsValid() {
		all.locals[to.dst] = true
	}
	// RFC 4303 section 2.1: no SA has SPI 0.
	if o.AllSAs && to.sa.SPI != 0 && all.locals[to.sa.Dst] {
		all.sas[to.sa] = true
	}
}

func (o Options) nattPort() uint16 {
	if o.NATTPort == 0 {
		return 4500
	}
	return o.NATTPort
}
