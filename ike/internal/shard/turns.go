package shard

import "net/netip"

// turns is a queue in which sources take turns, so that whoever comes with much
// to do waits behind himself. It stands behind the workers' lock.
type turns struct {
	jobs    map[netip.Addr]*queue[*job]
	sources queue[netip.Addr] // those that have jobs, each once
}

func (t *turns) push(j *job) {
	q := t.jobs[j.source]
	if q == nil {
		q = &queue[*job]{}
		if t.jobs == nil {
			t.jobs = map[netip.Addr]*queue[*job]{}
		}
		t.jobs[j.source] = q
		t.sources.push(j.source)
	}
	q.push(j)
}

// first is the job whose turn it is, nil if there is none; those that do not
// count any more are left behind.
func (t *turns) first(counts func(*job) bool) *job {
	for t.sources.len() > 0 {
		source := *t.sources.first()
		for q := t.jobs[source]; q.len() > 0; q.pop() {
			if j := *q.first(); counts(j) {
				return j
			}
		}
		t.sources.pop()
		delete(t.jobs, source)
	}
	return nil
}

// pop takes what first has given, and the next source has its turn.
func (t *turns) pop() {
	source := t.sources.pop()
	q := t.jobs[source]
	q.pop()
	if q.len() > 0 {
		t.sources.push(source)
	} else {
		delete(t.jobs, source)
	}
}
