package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/measure"
)

// bareRound is the CPU time of the cryptography that a responder needs for one
// handshake, on the gateway's CPU, as its benchmark has it.
func (c config) bareRound() (took time.Duration, err error) {
	l := lab.New()
	defer func() { err = errors.Join(err, l.Close()) }()
	ns, err := l.Namespace("bare")
	if err != nil {
		return 0, err
	}
	out := new(lab.Transcript)
	p, err := ns.Start(lab.Command{
		Path: filepath.Join(c.built, bare), Dir: c.built, Output: out,
		Args:    []string{"-test.run", "^$", "-test.bench", "^BenchmarkResponder$", "-test.benchtime", c.bareTime.String()},
		Prepare: func() error { return measure.Pin(c.gatewayCPU) },
	})
	if err != nil {
		return 0, err
	}
	if err := p.Wait(); err != nil {
		return 0, fmt.Errorf("the bare cryptography: %w\n%s", err, out)
	}
	return readBare(out.String())
}

// readBare finds the figure in what a benchmark prints.
func readBare(text string) (time.Duration, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		for i, unit := range fields {
			if unit != "cpu-ns/op" || !strings.HasPrefix(fields[0], "BenchmarkResponder") {
				continue
			}
			var ns float64
			_, err := fmt.Sscan(fields[i-1], &ns)
			return time.Duration(ns), err
		}
	}
	return 0, fmt.Errorf("the bare cryptography: no figure in\n%s", text)
}
