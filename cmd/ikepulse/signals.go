package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// interruptible ends with the first signal that asks for the end; the second
// ends the process where it stands.
func interruptible() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	// Ends with the process.
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitError)
	}()
	return ctx
}

// outlastReader lets a write to a log or a pipe that nobody reads any more fail.
// By default Go ends a process for that, which is right for whoever prints.
func outlastReader() { signal.Ignore(unix.SIGPIPE) }

// outlastTerminal lets the process go on when its terminal goes, and calls
// hungUp for each SIGHUP until ctx ends.
func outlastTerminal(ctx context.Context, hungUp func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP)
	go func() { // ends with ctx; the signal stays harmless
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
				hungUp()
			}
		}
	}()
}
