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
// for a reader who does not read, and one who has gone ends nothing. What has
// no room is dropped, counted, and told once there is room again.
type logWriter struct {
	lines   chan []byte
	dropped atomic.Uint64
	done    chan struct{}
}

// newLogWriter begins to write to out, until close.
func newLogWriter(out io.Writer, c config.Log) *logWriter {
	w := &logWriter{lines: make(chan []byte, logLines), done: make(chan struct{})}
	own := newLogger(out, c)
	go func() { // ends after close, once all is written
		defer close(w.done)
		for line := range w.lines {
			if _, err := out.Write(line); err != nil {
				w.dropped.Add(1)
				continue
			}
			w.tellDropped(own)
		}
		w.tellDropped(own)
	}()
	return w
}

func (w *logWriter) tellDropped(log *slog.Logger) {
	if n := w.dropped.Swap(0); n > 0 {
		log.Warn("lines of this log were dropped: nobody read it", "lines", n)
	}
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

// close waits a moment for what is still to be written. Nobody may write after
// it.
func (w *logWriter) close() {
	close(w.lines)
	select {
	case <-w.done:
	case <-time.After(logGrace):
	}
}
