package ike

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// script is refusals in virtual time and what is written of them. It begins at a
// time that no other number looks like.
type script struct {
	few
	now   mono.Time
	lines []string
	out   int // lines that there were in this second
	most  int // in any
	since mono.Time
	told  int // refusals that were accounted for
	kept  int // the most subjects that were remembered
}

const scriptBegins = mono.Time(1000 * time.Hour)

func newScript() *script { return &script{now: scriptBegins, since: scriptBegins} }

// pass lets time go by, with its alarms.
func (s *script) pass(d time.Duration) {
	end := s.now.Add(d)
	for at := s.next(); at != 0 && at <= end; at = s.next() {
		s.now = max(s.now, at)
		s.catchUp()
	}
	s.now = end
}

func (s *script) catchUp() {
	missing, ended := s.tell(s.now)
	if missing > 0 {
		s.told += missing
		s.add("%d more", missing)
	}
	for _, k := range ended {
		s.told += k.more
		s.write()
		s.add("%v: %d more in the last minute", k.subject, k.more)
	}
}

func (s *script) refuse(sub subject) {
	s.catchUp()
	if s.line(s.now, sub) {
		s.told++
		s.write()
		s.add("%v", sub)
	}
	s.kept = max(s.kept, len(s.streaks), len(s.order))
}

// write counts the lines of a second, as somebody would who reads the log.
func (s *script) write() {
	if s.now.Sub(s.since) >= time.Second {
		s.since, s.out = s.now, 0
	}
	s.out++
	s.most = max(s.most, s.out)
}

func (s *script) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf("%7.3f ", s.now.Sub(scriptBegins).Seconds())+fmt.Sprintf(format, args...))
}

func from(source string, rule policy.Rule) subject {
	return subject{source: shard.SourcePrefix(netip.MustParseAddr(source)), rule: rule}
}

// TestFewLines: one line of a source and rule in a minute, and the number of the
// others at its end.
func TestFewLines(t *testing.T) {
	for name, c := range map[string]struct {
		play func(s *script)
		want string
	}{
		"one": {func(s *script) {
			s.refuse(from("203.0.113.9", policy.WrongSecret))
			s.pass(time.Hour)
		}, `
  0.000 refused 203.0.113.9: wrong secret`},
		"thirteen in a minute": {func(s *script) {
			for range 13 {
				s.refuse(from("203.0.113.9", policy.WrongSecret))
				s.pass(4 * time.Second)
			}
			s.pass(time.Hour)
		}, `
  0.000 refused 203.0.113.9: wrong secret
 60.000 refused 203.0.113.9: wrong secret: 12 more in the last minute`},
		"at the end of the minute": {func(s *script) {
			for _, wait := range []time.Duration{fewPause - 1, 1, fewPause} {
				s.refuse(from("203.0.113.9", policy.WrongSecret))
				s.pass(wait)
			}
			s.pass(time.Hour)
		}, `
  0.000 refused 203.0.113.9: wrong secret
 60.000 refused 203.0.113.9: wrong secret: 1 more in the last minute
 60.000 refused 203.0.113.9: wrong secret`},
		"other rules and sources": {func(s *script) {
			for range 2 {
				s.refuse(from("203.0.113.9", policy.WrongSecret))
				s.refuse(from("203.0.113.9", policy.NoIdentity))
				s.refuse(from("203.0.113.10", policy.WrongSecret))
				s.refuse(from("2001:db8:0:1::1", policy.WrongSecret))
				s.refuse(from("2001:db8:0:1:ffff::2", policy.WrongSecret)) // the same /64
				s.refuse(from("::ffff:203.0.113.9", policy.WrongSecret))
			}
			s.pass(time.Hour)
		}, `
  0.000 refused 203.0.113.9: wrong secret
  0.000 refused 203.0.113.9: no connection is for this identity
  0.000 refused 203.0.113.10: wrong secret
  0.000 refused 2001:db8:0:1::/64: wrong secret
 60.000 refused 203.0.113.9: wrong secret: 3 more in the last minute
 60.000 refused 203.0.113.9: no connection is for this identity: 1 more in the last minute
 60.000 refused 203.0.113.10: wrong secret: 1 more in the last minute
 60.000 refused 2001:db8:0:1::/64: wrong secret: 3 more in the last minute`},
		"some of all in a second": {func(s *script) {
			for i := range 12 {
				s.refuse(from(fmt.Sprintf("203.0.113.%d", i), policy.NoSuite))
			}
			for i := range 5 {
				known := from(fmt.Sprintf("198.51.100.%d", i), policy.NoAddress)
				known.known = true
				s.refuse(known)
			}
			s.pass(999 * time.Millisecond)
			s.refuse(from("203.0.113.99", policy.NoSuite))
			s.pass(time.Millisecond)
			s.refuse(from("203.0.113.99", policy.NoSuite))
		}, `
  0.000 refused 203.0.113.0: no common proposal for IKE
  0.000 refused 203.0.113.1: no common proposal for IKE
  0.000 refused 203.0.113.2: no common proposal for IKE
  0.000 refused 203.0.113.3: no common proposal for IKE
  0.000 refused 203.0.113.4: no common proposal for IKE
  0.000 refused 203.0.113.5: no common proposal for IKE
  0.000 refused 203.0.113.6: no common proposal for IKE
  0.000 refused 198.51.100.0: no address is left
  0.000 refused 198.51.100.1: no address is left
  0.000 refused 198.51.100.2: no address is left
  1.000 8 more
  1.000 refused 203.0.113.99: no common proposal for IKE`},
		"many minutes end at once, for nobody looked": {func(s *script) {
			for at := range 2 {
				for i := range 2 * strangerLines {
					s.refuse(from(fmt.Sprintf("203.0.%d.%d", at, i%strangerLines), policy.NoProof))
				}
				s.pass(time.Second)
			}
			s.lines, s.now = nil, s.now.Add(time.Hour)
			s.pass(time.Second)
			for i, line := range s.lines {
				if !strings.HasPrefix(line, fmt.Sprintf("3602.000 refused 203.0.0.%d: ", i)) && i < strangerLines {
					t.Errorf("told: %s", line)
				}
			}
			s.lines = s.lines[strangerLines:]
		}, `3603.000 7 more`},
		"by the peers that we call": {func(s *script) {
			for _, conn := range []string{"berlin", "bonn", "berlin"} {
				ev := shard.Event{Kind: sa.Refusing, Role: sa.Initiator, Conn: conn, Notify: wire.AuthenticationFailed,
					Path:    sa.Path{Remote: netip.MustParseAddrPort("203.0.113.7:4500")},
					Refusal: &sa.Refusal{ByPeer: true, Conn: &policy.Connection{Name: conn}}}
				s.refuse(subjectOf(ev))
			}
			s.pass(time.Hour)
		}, `
  0.000 203.0.113.7 refuses connection berlin: AUTHENTICATION_FAILED
  0.000 203.0.113.7 refuses connection bonn: AUTHENTICATION_FAILED
 60.000 203.0.113.7 refuses connection berlin: AUTHENTICATION_FAILED: 1 more in the last minute`},
	} {
		s := newScript()
		c.play(s)
		if d := cmp.Diff(strings.TrimPrefix(c.want, "\n"), strings.Join(s.lines, "\n")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestFloodOfRefusals: 20,000 sources, and one that comes 20,000 times, in ten
// seconds: seven lines a second at most, a bound on what is remembered, and each
// refusal is told or counted.
func TestFloodOfRefusals(t *testing.T) {
	const tries = 20000
	for name, source := range map[string]func(i int) netip.Addr{
		"many sources": func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) },
		"one source":   func(int) netip.Addr { return netip.MustParseAddr("203.0.113.9") },
		"for an hour":  func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i / 7)}) },
	} {
		s := newScript()
		pause := 500 * time.Microsecond
		if name == "for an hour" {
			pause = time.Hour / tries
		}
		for i := range tries {
			s.refuse(from(source(i).String(), policy.WrongSecret))
			s.pass(pause)
		}
		s.pass(time.Hour)
		if s.told != tries || s.most > strangerLines || s.kept > strangerLines*60 || len(s.streaks)+len(s.order) != 0 {
			t.Errorf("%s: %d of %d are accounted for, up to %d lines a second, %d remembered, %d in the end", name, s.told, tries, s.most, s.kept, len(s.order))
		}
		if name == "one source" && len(s.lines) != 2 {
			t.Errorf("one source has %q", s.lines)
		}
	}
}

// TestSubjects: what one line is enough of, and who is no stranger.
func TestSubjects(t *testing.T) {
	at := sa.Path{Remote: netip.MustParseAddrPort("203.0.113.7:4500")}
	source, berlin := at.Remote.Addr(), &policy.Connection{Name: "berlin"}
	for name, c := range map[string]struct {
		ev   shard.Event
		want subject
	}{
		"a stranger": {shard.Event{Refusal: &sa.Refusal{Rule: policy.WrongSecret, Conn: berlin}}, subject{source: source, rule: policy.WrongSecret}},
		"who has proved himself": {shard.Event{Conn: "berlin", Refusal: &sa.Refusal{Rule: policy.NoAddress, Conn: berlin, Proven: true}},
			subject{source: source, rule: policy.NoAddress, known: true}},
		"whom we have called": {shard.Event{Role: sa.Initiator, Conn: "berlin", Refusal: &sa.Refusal{Rule: policy.WrongSecret, Conn: berlin}},
			subject{source: source, conn: "berlin", rule: policy.WrongSecret, known: true}},
		"who has called, and refuses us": {shard.Event{Conn: "berlin", Notify: wire.AuthenticationFailed, Refusal: &sa.Refusal{ByPeer: true, Conn: berlin, Proven: true}},
			subject{source: source, conn: "berlin", byPeer: true, notify: wire.AuthenticationFailed, known: true}},
		"a failure here": {shard.Event{}, subject{source: source, local: true}},
	} {
		c.ev.Path = at
		if got := subjectOf(c.ev); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
