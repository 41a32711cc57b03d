package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestMain runs the tests once more in namespaces of their own, where they may
// be had.
func TestMain(m *testing.M) {
	if lab.Isolated() {
		if err := lab.Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		isolated = true
		os.Exit(m.Run())
	}
	if os.Geteuid() == 0 {
		if code, err := lab.Reexec(os.Args[1:], nil); err == nil {
			os.Exit(code)
		}
	}
	os.Exit(m.Run())
}

// isolated says that this process has nothing to break.
var isolated bool
