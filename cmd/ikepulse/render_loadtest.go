package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/loadtest"
)

// renderLoadtest is what became of the peers.
func renderLoadtest(w io.Writer, r loadtest.Report) error {
	var p page
	p.line("gateway", "%v, called by %s from %s, %s", r.Gateway, count(r.Peers, "peer"), sourcesText(r.Sources), paceText(r))
	p.line("up", "%s", thousands(r.Up))
	p.line("refused", "%s", refusedText(r.Refused, r.Refusals))
	if r.Unfinished > 0 {
		p.line("unfinished", "%s", refusedText(r.Unfinished, r.Complaints))
	}
	if r.NotCalled > 0 {
		p.line("not begun", "%s", thousands(r.NotCalled))
	}
	if r.SetupP50MS != nil {
		p.line("set-up", "p50 %s   p99 %s   max %s", fineMS(*r.SetupP50MS), fineMS(*r.SetupP99MS), fineMS(*r.SetupMaxMS))
	}
	p.line("sent again", "%s", count(int(r.Retransmissions), "request"))
	if r.LateFirst > 0 {
		p.line("late", "%s began later than planned, %s at most: this machine was too slow", count(r.LateFirst, "handshake"), fineMS(float64(r.LateMaxMS)))
	}
	if r.DroppedHere > 0 {
		p.line("dropped", "%s of the gateway, since this machine was too slow", count(int(r.DroppedHere), "answer"))
	}
	if r.UpAfterHold != nil {
		p.line("held", "%s, then %s still up", fineMS(float64(r.HoldMS)), thousands(*r.UpAfterHold))
	}
	p.line("wall", "%s", fineMS(float64(r.WallMS)))
	return p.to(w)
}

func paceText(r loadtest.Report) string {
	if r.PerSecond == 0 {
		return "all at once: within " + fineMS(float64(r.CallingMS))
	}
	return thousands(r.PerSecond) + " a second"
}

func sourcesText(n int) string {
	if n == 1 {
		return "1 address"
	}
	return thousands(n) + " addresses"
}

// refusedText is a sum of peers, and why; a reason has its number unless it is
// everybody's.
func refusedText(sum int, why []loadtest.Refusal) string {
	var out []string
	for _, w := range why {
		if w.Count == sum {
			out = append(out, plain(w.Reason))
		} else {
			out = append(out, thousands(w.Count)+" "+plain(w.Reason))
		}
	}
	if len(out) == 0 {
		return thousands(sum)
	}
	return thousands(sum) + ": " + strings.Join(out, ", ")
}

// fineMS is a time of which fractions of a second matter.
func fineMS(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	case ms < 100_000:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	return spanMS(int64(ms))
}

// bar is a line on a terminal that shows how it goes.
type bar struct{ to io.Writer } // nil: there is no terminal

func newBar(e env) bar {
	f, ok := e.stderr.(*os.File)
	if !ok {
		return bar{}
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return bar{}
	}
	return bar{f}
}

// show draws the line anew. What has no room in it is cut off: a second line
// would stay.
func (b bar) show(p loadtest.Progress) {
	const begin, keepToLine, wrap = "\r\x1b[K", "\x1b[?7l", "\x1b[?7h"
	if b.to != nil {
		fmt.Fprint(b.to, begin+keepToLine+barText(p)+wrap)
	}
}

func (b bar) clear() {
	if b.to != nil {
		fmt.Fprint(b.to, "\r\x1b[K")
	}
}

// barWidth is in characters.
const barWidth = 24

// barText fits the width of an ordinary terminal, unless there are a million
// peers or the gateway complains.
func barText(p loadtest.Progress) string {
	done := p.Up + p.Failed
	full := barWidth * done / p.Peers
	text := fmt.Sprintf("%s%s  %s up  %s refused", strings.Repeat("█", full), strings.Repeat("░", barWidth-full),
		thousands(p.Up), thousands(p.Failed))
	if p.Stage == "" {
		text += fmt.Sprintf("  %s waiting", thousands(p.Peers-done))
	}
	text += fmt.Sprintf("  %.0fs", p.Elapsed.Truncate(time.Second).Seconds())
	switch {
	case p.Stage != "":
		text += "  " + p.Stage
	case p.Complaint != "":
		text += "  it says " + plain(p.Complaint)
	}
	return text
}
