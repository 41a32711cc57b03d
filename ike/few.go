package ike

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

const (
	// fewLines is how many lines a second refusals may cause, and strangerLines how
	// many of them those who have not proved who they are: they hide nobody else.
	fewLines      = 10
	strangerLines = 7
	// fewPause is how long the second of one subject waits for its line.
	fewPause = time.Minute
)

// few chooses the refusals that are written, so that nobody can fill the log: one of
// a subject in a minute, and of all ten in a second. What is left out is counted and
// told. It remembers those that were written in the last minute and nothing else, so
// no number of sources makes it grow. It reads no clock.
type few struct {
	streaks map[subject]*streak
	order   []*streak // by their begin
	second  mono.Time // lines are counted since then
	lines   int
	missing int // left out since then, of subjects that have had no line
}

// subject is what one line is enough of: a source and a rule, or, where we have
// called, the connection and what came of it.
type subject struct {
	source netip.Addr // see shard.SourcePrefix
	conn   string     // that we called for
	byPeer bool
	rule   policy.Rule
	notify wire.NotifyType // by the peer
	local  bool            // it was no rule, but a failure here
	known  bool            // the peer has proved who he is, or we have called him
}

func subjectOf(ev shard.Event) subject {
	s := subject{source: shard.SourcePrefix(ev.Path.Remote.Addr()), local: ev.Refusal == nil, known: ev.Role == sa.Initiator}
	if ev.Role == sa.Initiator {
		s.conn = ev.Conn
	}
	if r := ev.Refusal; r != nil {
		s.byPeer, s.rule, s.known = r.ByPeer, r.Rule, s.known || r.Proven
		if r.ByPeer {
			s.conn, s.notify = r.Conn.Name, ev.Notify
		}
	}
	return s
}

// streak is a subject that has had its line.
type streak struct {
	subject
	began mono.Time
	more  int // left out since
}

// line reports whether a line about a subject is to be written now.
func (f *few) line(now mono.Time, s subject) bool {
	if k := f.streaks[s]; k != nil {
		k.more++
		return false
	}
	if !f.take(now, s) {
		f.missing++
		return false
	}
	k := &streak{subject: s, began: now}
	if f.streaks == nil {
		f.streaks = map[subject]*streak{}
	}
	f.streaks[s] = k
	f.order = append(f.order, k)
	return true
}

// take uses one of this second's lines, if one is left for such a subject.
func (f *few) take(now mono.Time, s subject) bool {
	if now.Sub(f.second) >= time.Second {
		f.second, f.lines = now, 0
	}
	if f.lines >= fewLines || !s.known && f.lines >= strangerLines {
		return false
	}
	f.lines++
	return true
}

// next is when something is to be told of what was left out; 0: there is nothing.
func (f *few) next() mono.Time {
	var at mono.Time
	if len(f.order) > 0 {
		at = f.order[0].began.Add(fewPause)
	}
	if f.missing > 0 {
		at = mono.Earliest(at, f.second.Add(time.Second))
	}
	return at
}

// tell gives what is due to be told: how many were left out of subjects that had no
// line, and those that had one, with how many there were more of.
func (f *few) tell(now mono.Time) (missing int, ended []*streak) {
	if f.missing > 0 && now.Sub(f.second) >= time.Second {
		missing, f.missing = f.missing, 0
	}
	for len(f.order) > 0 && now.Sub(f.order[0].began) >= fewPause {
		k := f.order[0]
		f.order = f.order[1:]
		delete(f.streaks, k.subject)
		switch {
		case k.more == 0:
		case f.take(now, k.subject):
			ended = append(ended, k)
		default:
			f.missing += k.more
		}
	}
	return missing, ended
}

// String is a subject in a line about those that were left out.
func (s subject) String() string {
	source := s.source.String()
	if s.source.Is6() {
		source += "/64"
	}
	switch {
	case s.local:
		return fmt.Sprintf("refused %s: %s", source, sa.LocalFailure)
	case s.byPeer && s.notify == 0:
		return fmt.Sprintf("%s gives connection %s no Child SA", source, s.conn)
	case s.byPeer:
		return fmt.Sprintf("%s refuses connection %s: %s", source, s.conn, s.notify)
	}
	return fmt.Sprintf("refused %s: %s", source, ruleWords[s.rule])
}
