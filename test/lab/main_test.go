package lab_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/ikepulse/ikepulse/test/lab"
)

// helper names what a copy of the test binary does instead of testing.
const helper = "IKEPULSE_LAB_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helper); name != "" {
		os.Exit(helpers[name]())
	}
	before, _ := os.Readlink("/proc/self/ns/net")
	code := m.Run()
	// The main thread outlives its goroutines: had it become a namespace's
	// thread, it would hold that for good.
	if after, _ := os.Readlink("/proc/self/ns/net"); after != before {
		code = fail(fmt.Errorf("the main thread went from %s to %s", before, after))
	}
	os.Exit(code)
}

// build makes a lab that is closed, and found to have left nothing, when the
// test ends.
func build(t *testing.T) *lab.Lab {
	t.Helper()
	before := snapshot(t)
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
		checkLeftovers(t, before)
	})
	return l
}

func standard(t *testing.T, clients int) *lab.Standard {
	t.Helper()
	s, err := build(t).Standard(clients)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func snapshot(t *testing.T, prefixes ...string) *lab.Inventory {
	t.Helper()
	inv, err := lab.Snapshot(prefixes...)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func checkLeftovers(t *testing.T, before *lab.Inventory) {
	t.Helper()
	left, err := before.Leftovers(limit)
	if err != nil {
		t.Error(err)
	}
	for _, line := range left {
		t.Errorf("left: %s", line)
	}
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
