package main

import (
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
)

const (
	// logLines may wait for a reader of the log who has stopped reading.
	logLines = 4096
	// logGrace is how long the last of them may take to be written at the end.
	logGrace = time.Second
)

// logWriter writes the lines of a log in a goroutine of its own: nobody waits
// for a reader who does not read, and one who has gone, or a disk that is full,
// ends nothing. What has no room is dropped, counted, and told once there is room
// again.
type logWriter struct {
	lines   chan []byte
	dropped atomic.Uint64
	end     chan struct{} // closed by close
	done    chan struct{}
}

// newLogWriter begins to write to out, until close.
func newLogWriter(out io.Writer, c config.Log) *logWriter {
	w := &logWriter{lines: make(chan []byte, logLines), end: make(chan struct{}), done: make(chan struct{})}
	f := &logFile{out: out}
	own := newLogger(f, c)
	go func() { // ends after close, once all is written
		defer close(w.done)
		for line, ok := w.next(); ok; line, ok = w.next() {
			if _, err := f.Write(line); err != nil {
				f.lost++
				continue
			}
			w.tellDropped(f, own)
		}
		w.tellDropped(f, own)
	}()
	return w
}

// next waits for a line; there is none where all are written that came before the
// end.
func (w *logWriter) next() (line []byte, ok bool) {
	select {
	case line = <-w.lines:
		return line, true
	case <-w.end:
	}
	select {
	case line = <-w.lines:
		return line, true
	default:
		return nil, false
	}
}

// tellDropped says how many lines are missing, and why. Where that cannot be
// written either, it is said later.
func (w *logWriter) tellDropped(f *logFile, own *slog.Logger) {
	if n := w.dropped.Swap(0); n > 0 {
		own.Warn("lines of this log were dropped: nobody read it", "lines", n)
		if f.failing {
			w.dropped.Add(n)
		}
	}
	if n, why := f.lost, f.why; n > 0 {
		own.Warn("lines of this log could not be written", "lines", n, "error", why)
		if !f.failing {
			f.lost = 0
		}
	}
}

// logFile is where a log goes to.
type logFile struct {
	out     io.Writer
	failing bool   // the last line could not be written
	cut     bool   // a part of a line stands at the end
	lost    uint64 // lines that could not be written, and are not told of
	why     error  // the last of those
}

// Write writes one line. One of which a full disk has taken a part does not stand
// in the way of the next.
func (f *logFile) Write(line []byte) (int, error) {
	before := 0
	if f.cut {
		line, before = append([]byte{'\n'}, line...), 1
	}
	n, err := f.out.Write(line)
	if f.failing = err != nil; f.failing {
		f.why = err
	}
	if n > 0 {
		f.cut = n > before && n < len(line)
	}
	return n, err
}

// Write takes one line.
func (w *logWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.dropped.Add(1)
	}
	return len(line), nil
}

// close waits a moment for what is still to be written. What comes later, as of a
// signal, nobody writes.
func (w *logWriter) close() {
	close(w.end)
	select {
	case <-w.done:
	case <-time.After(logGrace):
	}
}
