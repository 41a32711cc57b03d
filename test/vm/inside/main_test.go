//go:build vm

// Package inside is what is proved in a guest alone: it needs the kernel's own
// ESP, modules, or devices that the host's kernel lacks. test/vm builds it and
// runs it on each kernel (make test-vm).
package inside

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// product is the path of the product's binary, which the host has built.
var product = os.Getenv("IKEPULSE_PRODUCT")

// cardsNetns is by what a test reaches the namespace that the guest's network
// cards are in.
const cardsNetns = "/dev/shm/cards"

// TestMain runs the tests in namespaces of their own, with a bpffs.
func TestMain(m *testing.M) {
	if flag.Parse(); flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run()) // of which the host wants to know
	}
	if product == "" {
		fail(errors.New("these tests run in a guest: make test-vm"))
	}
	if !lab.Isolated() {
		if err := keepCards(); err != nil {
			fail(err)
		}
		code, err := lab.Reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	// Each strongSwan gets a /run to itself: files that others need stand
	// elsewhere.
	if err := errors.Join(lab.Enter(), os.Setenv("TMPDIR", "/dev/shm")); err != nil {
		fail(err)
	}
	os.Exit(m.Run())
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// keepCards keeps a way to this network namespace open.
func keepCards() error {
	if err := os.WriteFile(cardsNetns, nil, 0o600); err != nil {
		return err
	}
	return unix.Mount("/proc/self/ns/net", cardsNetns, "", unix.MS_BIND, "")
}
