package maps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/ikepulse/ikepulse/bpf"
)

// Events are what XDP tells of as it happens. Nothing in them is
// authenticated: whoever reads them finds out.
//
// The ring has one reader; a second takes events away from the first. It
// outlives both: who starts reading gets what has gathered.
type Events struct {
	ring   *ringbuf.Reader
	record ringbuf.Record
}

// Event is one of them.
type Event struct {
	SPI    uint32 // that packets carried which came from another tuple; 0: a stranger's keepalive
	At     int64  // CLOCK_BOOTTIME, ns
	From   Tuple  // what the packet came with; ports 0 without UDP
	Before Tuple  // where the SPI was expected from
}

// Events opens the ring of a set that is not read-only. The reader is to be
// closed before the set.
func (s *Set) Events() (*Events, error) {
	ring, err := ringbuf.NewReader(s.handles.Events)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", bpf.MapEvents, err)
	}
	return &Events{ring: ring}, nil
}

// Read waits for an event. After Close it returns an error that wraps
// [os.ErrClosed]. One goroutine reads.
func (e *Events) Read() (Event, error) {
	for {
		if err := e.ring.ReadInto(&e.record); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return Event{}, err
			}
			return Event{}, fmt.Errorf("%s: %w", bpf.MapEvents, err)
		}
		var raw bpf.Event
		if err := binary.Read(bytes.NewReader(e.record.RawSample), binary.NativeEndian, &raw); err != nil {
			return Event{}, fmt.Errorf("%s: a record of %d bytes: %w", bpf.MapEvents, len(e.record.RawSample), err)
		}
		switch raw.Kind {
		case bpf.EventDrift, bpf.EventStranger:
			return Event{SPI: raw.Spi, At: int64(raw.BoottimeNs), From: tupleOf(raw.From), Before: tupleOf(raw.Before)}, nil
		}
		// A program that was pinned by a later version knows more kinds.
	}
}

// Close ends the reading, in whatever goroutine it waits.
func (e *Events) Close() error { return e.ring.Close() }
