package shard

import (
	"sync"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// inbox is a bounded queue of datagrams: any goroutine puts, one takes. What
// does not fit is dropped and counted; nobody ever waits. Datagrams are copied
// into the inbox, so that a reader's buffers stay its own, and the memory goes
// back and forth between the inbox and its reader instead of being allocated.
type inbox struct {
	maxPackets, maxBytes int

	mu      sync.Mutex
	filling batch
	dropped uint64
}

// batch is some datagrams and the memory that they lie in.
type batch struct {
	packets []wire.Packet
	memory  []byte
}

// put queues a copy of p, unless the inbox is full.
func (q *inbox) put(p wire.Packet) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := &q.filling
	if len(f.packets) >= q.maxPackets || len(f.memory)+len(p.Data) > q.maxBytes {
		q.dropped++
		return false
	}
	// Should append move the memory, what was queued before keeps the old
	// array alive and is not disturbed.
	start := len(f.memory)
	f.memory = append(f.memory, p.Data...)
	p.Data = f.memory[start:len(f.memory):len(f.memory)]
	f.packets = append(f.packets, p)
	return true
}

// spareMemory is what an inbox keeps although it could do with less.
const spareMemory = 256 << 10

// emptied is the batch ready to be filled again. Memory that a flood has left
// behind goes when the flood is over.
func (b batch) emptied() batch {
	clear(b.packets)
	if cap(b.memory) > spareMemory && len(b.memory) < cap(b.memory)/4 {
		return batch{}
	}
	return batch{b.packets[:0], b.memory[:0]}
}

// take gives all that is queued in exchange for a batch that has been worked
// off, whose memory is filled next.
func (q *inbox) take(done batch) batch {
	done = done.emptied()
	q.mu.Lock()
	defer q.mu.Unlock()
	full := q.filling
	q.filling = done
	return full
}

func (q *inbox) drops() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// message is what other goroutines tell a loop: it runs there.
type message func(now mono.Time)

// mailbox is a queue of messages: any goroutine posts, one takes.
type mailbox struct {
	max int

	mu      sync.Mutex
	filling []message
	dropped uint64

	// Those below are the taker's.
	taken []message
	next  int
}

// offer queues a message, unless the mailbox is full.
func (m *mailbox) offer(f message) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.filling) >= m.max {
		m.dropped++
		return false
	}
	m.filling = append(m.filling, f)
	return true
}

// post queues a message that must not be lost, whatever the mailbox holds: an
// answer that an SA waits for, or the end of what it holds. There are no more of
// them than SAs and jobs, so this bounds them.
func (m *mailbox) post(f message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.filling = append(m.filling, f)
}

// some hands out n messages at most.
func (m *mailbox) some(n int, do func(message)) {
	for range n {
		if m.next == len(m.taken) {
			m.refill()
		}
		if m.next == len(m.taken) {
			return
		}
		f := m.taken[m.next]
		m.next++
		do(f)
	}
}

// refill takes all messages in exchange for a slice that has been worked off.
func (m *mailbox) refill() {
	clear(m.taken)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken, m.filling, m.next = m.filling, m.taken[:0], 0
}

// waiting reports whether some would hand out anything.
func (m *mailbox) waiting() bool {
	if m.next < len(m.taken) {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.filling) > 0
}

func (m *mailbox) drops() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dropped
}

// stream is an inbox that its reader takes from one by one.
type stream struct {
	inbox
	taken batch
	next  int
}

// pop gives the next datagram; its bytes hold until the next pop.
func (q *stream) pop() (wire.Packet, bool) {
	if q.next == len(q.taken.packets) {
		q.taken, q.next = q.take(q.taken), 0
	}
	if q.next == len(q.taken.packets) {
		return wire.Packet{}, false
	}
	p := q.taken.packets[q.next]
	q.next++
	return p, true
}

// some hands out n datagrams at most.
func (q *stream) some(n int, do func(wire.Packet)) {
	for range n {
		p, ok := q.pop()
		if !ok {
			return
		}
		do(p)
	}
}

// waiting tells that pop would give something.
func (q *stream) waiting() bool {
	if q.next < len(q.taken.packets) {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.filling.packets) > 0
}

// queue is first in, first out, and belongs to one goroutine or stands behind
// a lock.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) len() int { return len(q.items) - q.head }

func (q *queue[T]) first() *T { return &q.items[q.head] }

func (q *queue[T]) push(v T) { q.items = append(q.items, v) }

// pop takes the first. What has been popped is let go of at once, and its room
// is used again before the queue grows twice as long as what is in it.
func (q *queue[T]) pop() T {
	var none T
	v := q.items[q.head]
	q.items[q.head] = none
	if q.head++; q.head == len(q.items) {
		*q = queue[T]{}
	} else if q.head > len(q.items)/2 {
		q.items, q.head = append([]T(nil), q.items[q.head:]...), 0
	}
	return v
}
