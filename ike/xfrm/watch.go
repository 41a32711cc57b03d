package xfrm

import (
	"context"
	"errors"

	"github.com/vishvananda/netlink/nl"
)

// groups are the events that say something about states: SA (new, updated,
// deleted, flushed), expiry, mappings that moved, migration.
const groups = 1<<(nl.XFRMNLGRP_SA-1) | 1<<(nl.XFRMNLGRP_EXPIRE-1) |
	1<<(nl.XFRMNLGRP_MAPPING-1) | 1<<(nl.XFRMNLGRP_MIGRATE-1)

// eventRoom is what the kernel may keep for a watcher that is busy: some
// thousands of events. More are found by a dump.
const eventRoom = 8 << 20

// Watcher follows the states of one network namespace, whoever makes them.
type Watcher struct {
	events *socket
	reader *Reader
	table  *table
}

// Batch is what the kernel told at once.
type Batch struct {
	Changes []Change // in their order
	Synced  bool     // the changes come from a dump: every state is known now
	Lost    bool     // which was due because the kernel had dropped events
	Unread  int      // messages that could not be decoded
}

// NewWatcher returns a watcher of the calling thread's network namespace; it
// may be used from any thread. Events from now on are kept for Run.
func NewWatcher() (*Watcher, error) {
	events, err := newSocket(groups)
	if err != nil {
		return nil, err
	}
	reader, err := NewReader()
	if err == nil {
		err = events.room(eventRoom)
	}
	if err != nil {
		return nil, errors.Join(err, events.Close())
	}
	return &Watcher{events: events, reader: reader, table: newTable()}, nil
}

// Close gives the sockets back. Run must have returned.
func (w *Watcher) Close() error { return errors.Join(w.events.Close(), w.reader.Close()) }

// Run calls handle first with every state that there is, then with each change
// as it comes, until ctx is done or handle fails. It is to be called once.
func (w *Watcher) Run(ctx context.Context, handle func(Batch) error) error {
	stop := context.AfterFunc(ctx, func() {
		w.events.wake()
		w.reader.s.wake()
	})
	defer stop()
	err := w.sync(handle, false)
	for err == nil {
		err = w.next(handle)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// sync takes a dump over.
func (w *Watcher) sync(handle func(Batch) error, lost bool) error {
	var all []SA
	unread, err := w.reader.All(func(sa SA) { all = append(all, sa) })
	if err != nil {
		return err
	}
	return handle(Batch{Changes: w.table.replace(all), Synced: true, Lost: lost, Unread: unread})
}

// next takes over what the kernel tells next.
func (w *Watcher) next(handle func(Batch) error) error {
	var b Batch
	resync := false
	err := w.events.read(func(h header, body []byte) error {
		e, err := decode(h.Kind, body)
		if err != nil {
			b.Unread++
			return nil
		}
		resync = resync || e.kind == eventResync
		b.Changes = append(b.Changes, w.table.apply(e)...)
		return nil
	})
	if errors.Is(err, errOverrun) {
		return w.restart(handle)
	}
	if err != nil {
		return err
	}
	if len(b.Changes) > 0 || b.Unread > 0 {
		if err := handle(b); err != nil {
			return err
		}
	}
	if resync {
		return w.sync(handle, false)
	}
	return nil
}

// restart begins anew after lost events. Those that still wait are older than
// the lost ones and go first: taken over after the dump, one of a state whose
// end was lost would bring it back for good.
func (w *Watcher) restart(handle func(Batch) error) error {
	if err := w.events.drain(); err != nil {
		return err
	}
	return w.sync(handle, true)
}
