package demo

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/ikepulse/ikepulse/ike"
)

// entry is one event of one daemon.
type entry struct {
	who string
	ike.Event
}

// diary keeps what the daemons tell, in the order of its coming. Any goroutine
// may use it.
type diary struct {
	mu      sync.Mutex
	entries []entry
	more    chan struct{} // closed and made anew with each entry
}

func newDiary() *diary { return &diary{more: make(chan struct{})} }

func (d *diary) note(who string, m []byte) error {
	var e ike.Event
	if err := json.Unmarshal(m, &e); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, entry{who, e})
	close(d.more)
	d.more = make(chan struct{})
	return nil
}

// mark is a place in the diary: what comes behind it is still to happen.
func (d *diary) mark() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.entries)
}

// since are the entries behind a mark that match.
func (d *diary) since(mark int, match func(entry) bool) (out []entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.entries[mark:] {
		if match(e) {
			out = append(out, e)
		}
	}
	return out
}

// await waits for the first entry behind a mark that matches.
func (d *diary) await(ctx context.Context, mark int, match func(entry) bool) (entry, error) {
	for {
		d.mu.Lock()
		more := d.more
		for _, e := range d.entries[mark:] {
			if match(e) {
				d.mu.Unlock()
				return e, nil
			}
		}
		d.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return entry{}, ctx.Err()
		}
	}
}

// told matches an event of a daemon about a peer; an empty peer is any.
func told(who, kind, peer string) func(entry) bool {
	return func(e entry) bool { return e.who == who && e.Kind == kind && (peer == "" || e.Peer == peer) }
}
