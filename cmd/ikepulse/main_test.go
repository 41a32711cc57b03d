package main

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// asProgram makes a copy of the test binary be ikepulse itself.
const asProgram = "IKEPULSE_TEST_AS_PROGRAM"

// TestMain runs the tests in namespaces of their own, where they may be had: an
// own /run and bpffs, which vanish with the process.
func TestMain(m *testing.M) {
	unix.Umask(0o022) // a folder that others may write to holds no configuration
	if os.Getenv(asProgram) != "" {
		if err := limitLocked(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(program())
	}
	if lab.Isolated() {
		if err := errors.Join(lab.Enter(), lab.OwnTemp()); err != nil {
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
