package ike

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Keys of log attributes.
const (
	keyPeer    = "peer"
	keyConn    = "connection"
	keyLocal   = "local"
	keyRemote  = "remote"
	keyFrom    = "from"
	keySPI     = "spi"
	keySuite   = "suite"
	keyRole    = "role"
	keyInSPI   = "spi_in"
	keyOutSPI  = "spi_out"
	keyLocalTS = "local_ts"
	keyPeerTS  = "remote_ts"
	keyVIPs    = "virtual_ips"
	keyNotify  = "notify"
	keyError   = "error"
	keyTry     = "try"
	keyMoves   = "moves"
	keySilent  = "silent"
	keyLocalNT = "local_natted"
	keyPeerNT  = "peer_natted"
	keyMissing = "not_logged"
	keyStack   = "stack"
	keyPeak    = "half_open"
	keyLasted  = "lasted"
	keyBy      = "by"
	keyRule    = "rule"
)

// maxText is the longest text of a peer's making that is shown.
const maxText = 256

// clip makes text that a peer may have chosen harmless: one line, printable,
// and not long.
func clip(s string) string {
	q := strconv.QuoteToASCII(s)
	if q = q[1 : len(q)-1]; len(q) > maxText {
		q = q[:maxText]
	}
	return q
}

// eventLog writes a line for each change of an SA's state. It belongs to the
// hub's goroutine.
type eventLog struct {
	to  *slog.Logger
	few few
}

// wants reports whether an event is to be logged: by its level, and, where a
// stranger may have caused it, once in a while.
func (l *eventLog) wants(ev shard.Event) bool {
	return l.to.Enabled(context.Background(), levelOf(ev)) && (!fromStrangers(ev) || l.few.line(ev.At, subjectOf(ev)))
}

// fromStrangers reports whether somebody may cause as many events of that kind as
// he likes.
func fromStrangers(ev shard.Event) bool {
	var p *shard.PanicError
	return ev.Kind == sa.Refusing || failedHere(ev) && ev.Role == sa.Responder && !errors.As(ev.Err, &p)
}

// failedHere reports whether a tunnel is not to be had since something of this host
// does not work.
func failedHere(ev shard.Event) bool {
	return ev.Kind == sa.Closed && ev.Reason == sa.LocalFailure ||
		ev.Kind == sa.Established && ev.Role == sa.Responder && ev.Notify == wire.TemporaryFailure
}

func (l *eventLog) write(e Event, ev shard.Event) {
	l.to.LogAttrs(context.Background(), levelOf(ev), message(e), attrs(e, ev)...)
}

// catchUp tells of what was left out.
func (l *eventLog) catchUp(now mono.Time) {
	missing, ended := l.few.tell(now)
	if missing > 0 {
		l.to.Warn(fmt.Sprintf("%d more refusals are not shown", missing), slog.Int(keyMissing, missing))
	}
	for _, k := range ended {
		l.to.Warn(fmt.Sprintf("%s: %d more in the last minute", k.subject, k.more), slog.Int(keyMissing, k.more))
	}
}

// levelOf: what an operator wants to know of every tunnel is info, the
// exchanges within one are debug.
func levelOf(ev shard.Event) slog.Level {
	if failedHere(ev) {
		return slog.LevelError
	}
	switch ev.Kind {
	case sa.Refusing:
		return slog.LevelWarn
	case sa.ProbeSent, sa.Retransmit, sa.ProbeAnswered, sa.Drift, sa.Unanswered:
		return slog.LevelDebug
	case sa.Moved:
		if ev.Moves == 0 {
			return slog.LevelDebug
		}
	case sa.Closed:
		switch ev.Reason {
		case sa.AuthFailed, sa.Refused: // which a Refusing has told
			return slog.LevelDebug
		case sa.ProtocolError, sa.PeerDead:
			return slog.LevelWarn
		}
	}
	return slog.LevelInfo
}

// message says what has happened in the words of a person.
func message(e Event) string {
	if r := e.Refusal; r != nil {
		return r.Line()
	}
	switch {
	case e.Reason != "":
		return e.Reason
	case e.Kind == "established" && e.Notify+e.Error != "":
		return "established without a Child SA"
	}
	b := []byte(e.Kind)
	for i := range b {
		if b[i] == '_' {
			b[i] = ' '
		}
	}
	return string(b)
}

func attrs(e Event, ev shard.Event) []slog.Attr {
	if r := e.Refusal; r != nil {
		return []slog.Attr{slog.String(keyBy, r.By), slog.String(keyRule, cmp.Or(r.Rule, r.Notify))}
	}
	as := []slog.Attr{slog.String(keyConn, e.Connection), slog.String(keyPeer, e.Peer),
		slog.Any(keyRemote, e.Remote), slog.String(keySPI, e.SPI)}
	switch ev.Kind {
	case sa.Connecting:
		as = append(as, slog.Any(keyLocal, e.Local))
	case sa.NATDetected:
		as = append(as, slog.Bool(keyLocalNT, e.LocalNATted), slog.Bool(keyPeerNT, e.PeerNATted))
	case sa.Established:
		as = append(as, slog.String(keyRole, e.Role), slog.String(keySuite, e.Suite))
	case sa.Retransmit, sa.Unanswered:
		as = append(as, slog.Int(keyTry, e.Try))
	case sa.Moved:
		if ev.Moves > 1 {
			as = append(as, slog.Int(keyMoves, ev.Moves))
		}
	case sa.Drift:
		as = append(as, slog.Any(keyFrom, e.From))
	}
	if c := e.Child; c != nil {
		as = append(as, slog.String(keyInSPI, c.InSPI), slog.String(keyOutSPI, c.OutSPI), slog.Any(keyLocalTS, c.LocalTS),
			slog.Any(keyPeerTS, c.RemoteTS), slog.String(keySuite, c.Suite))
		if len(c.VirtualIPs) > 0 {
			as = append(as, slog.Any(keyVIPs, c.VirtualIPs))
		}
	}
	if e.SilentMS > 0 {
		as = append(as, slog.Duration(keySilent, ev.IdleFor.Round(time.Millisecond)))
	}
	if e.Notify != "" {
		as = append(as, slog.String(keyNotify, e.Notify))
	}
	if e.Error != "" {
		as = append(as, slog.String(keyError, e.Error))
	}
	var p *shard.PanicError
	if errors.As(ev.Err, &p) {
		as = append(as, slog.String(keyStack, string(p.Stack)))
	}
	return as
}

// surge writes that everybody comes at once, and how that has ended: a line each.
func (l *eventLog) surge(s shard.Surge) {
	if !s.Over {
		l.to.Warn("surge: everybody is asked for a cookie", slog.Int(keyPeak, s.HalfOpen))
		return
	}
	as := []slog.Attr{slog.Duration(keyLasted, s.Lasted.Round(time.Millisecond)), slog.Int(keyPeak, s.HalfOpen)}
	for _, name := range slices.Sorted(maps.Keys(s.Counters)) {
		if n := s.Counters[name]; n > 0 {
			as = append(as, slog.Uint64(name, n))
		}
	}
	l.to.LogAttrs(context.Background(), slog.LevelInfo, "surge is over", as...)
}
