package gateway

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// childRole says to this binary that it is a copy, started by a test in the
// namespaces of that test.
const childRole = "IKEPULSE_GATEWAY_TEST_CHILD"

// isolated tells that this process is in namespaces of its own, which vanish
// with it: nothing is loaded into any other.
var isolated bool

// TestMain runs the tests once more in namespaces of their own, with an empty
// bpffs and an empty /run.
func TestMain(m *testing.M) {
	unix.Umask(0o022) // a folder that others may write to holds no configuration
	isolated = os.Getenv(childRole) != ""
	if os.Geteuid() != 0 || isolated {
		os.Exit(m.Run())
	}
	if !lab.Isolated() {
		code, err := lab.Reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, "no namespaces for the tests:", err)
			code = m.Run() // those that need them say so
		}
		os.Exit(code)
	}
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	isolated = true
	os.Exit(m.Run())
}
