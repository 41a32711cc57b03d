package gateway

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// post is one barrier, and how it fares.
type post struct {
	kind    string
	stops   way
	missing func() (string, error)
	restore func() error

	doubted bool   // something has happened to it
	gone    string // what is missing, as of the last look
	fell    time.Time
	times   int // that it has been restored since the last calm time
	pause   time.Duration
	next    time.Time // it is not restored before
	said    string    // why it could not be, the last time
}

// way is a set of directions.
type way uint8

const (
	inward way = 1 << iota
	outward
)

const (
	// A barrier is restored at once, and after growing pauses where somebody
	// takes it away again and again while another stands; a calm time ends that.
	// The longest keeps to the second within which what was taken away is back.
	firstRestorePause, lastRestorePause = 100 * time.Millisecond, 800 * time.Millisecond
	calmTime                            = 30 * time.Second
)

// alone reports whether a barrier is the only one of some direction.
func (g *guard) alone(p *post) bool {
	var others way
	for _, o := range g.posts {
		if o != p && o.gone == "" {
			others |= o.stops
		}
	}
	return p.stops&^others != 0
}

// tend looks at a barrier and puts back what is missing, at once if nothing else
// stands.
func (g *guard) tend(p *post, now time.Time) {
	what, err := p.missing()
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return // blind: what stood stands as far as anybody knows, and is looked at again
	}
	if err != nil {
		what = oneLine(err)
	}
	p.doubted = false
	if what == "" {
		p.gone = ""
		return
	}
	if now.Sub(p.fell) >= calmTime {
		p.pause, p.next, p.times = 0, now, 0
	}
	p.gone = what
	if now.Before(p.next) && !g.alone(p) {
		return
	}
	p.fell = now
	p.pause = min(max(2*p.pause, firstRestorePause), lastRestorePause)
	p.next = now.Add(p.pause)
	if err := p.restore(); err != nil {
		if text := oneLine(err); text != p.said {
			p.said = text
			g.log.Warn("a barrier against packets in the clear is gone, and cannot be restored", "missing", what, "error", text)
		}
		return
	}
	p.said = ""
	p.gone = ""
	// The first time, and then less and less often.
	if p.times++; p.times&(p.times-1) == 0 {
		g.log.Warn("somebody has taken away a barrier against packets in the clear; it is restored", "missing", what, "times", p.times)
	}
}
