// Package require says what a test needs of the machine. A need that is not
// met skips the test, unless the environment promised it: a word listed in
// IKEPULSE_REQUIRE (a comma list) turns the skip into a failure, so that a
// test cannot fall silent on a machine that is meant to run it.
package require

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ikepulse/ikepulse/test/vm"
)

// environment names the words whose absence is an error.
const environment = "IKEPULSE_REQUIRE"

// probes tell what is wrong with the machine, nil when the need is met. Each
// really tries: a file that exists proves little about a device or a syscall.
var probes = map[string]func() error{
	"root":       sync.OnceValue(probeRoot),
	"netns":      sync.OnceValue(probeNetns),
	"tun":        sync.OnceValue(probeTUN),
	"bpf":        sync.OnceValue(probeBPF),
	"iter":       sync.OnceValue(probeIterator),
	"strongswan": sync.OnceValue(probeStrongSwan),
	"vm":         sync.OnceValue(vm.Available),
	"bpftool":    sync.OnceValue(probeBpftool),
	"cases":      func() error { _, err := casesDir(); return err },
}

// Have skips the test unless the machine has everything named by words: root,
// netns, tun, bpf, iter (bpf allows programs, iter also BPF iterators, which some
// kernels refuse), strongswan, bpftool, vm, cases. It fails the test instead when
// a missing word is listed in IKEPULSE_REQUIRE, and for a word it does not know.
// The words come before the reasons: test/tally reads them.
func Have(t testing.TB, words ...string) {
	t.Helper()
	var missing, reasons []string
	for _, word := range words {
		if err := lack(t, word); err != nil {
			missing, reasons = append(missing, word), append(reasons, err.Error())
		}
	}
	if len(missing) > 0 {
		t.Skipf("needs %s (%s)", strings.Join(missing, ", "), strings.Join(reasons, "; "))
	}
}

// Has reports whether the machine has what word names, for a test that runs
// either way and expects different things. It fails the test where Have does.
func Has(t testing.TB, word string) bool {
	t.Helper()
	return lack(t, word) == nil
}

// lack says why the machine does not have what word names, and fails the test
// if it was promised.
func lack(t testing.TB, word string) error {
	t.Helper()
	probe, ok := probes[word]
	if !ok {
		t.Fatalf("require: no probe for %q", word)
	}
	err := probe()
	if err != nil && promised(word) {
		t.Fatalf("%s is promised by %s, but: %v", word, environment, err)
	}
	return err
}

// Cases returns the folder of captures and vectors that live outside the
// repository: IKEPULSE_CASES, or ../shared/cases beside the repository.
func Cases(t testing.TB) string {
	t.Helper()
	Have(t, "cases")
	dir, err := casesDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func promised(word string) bool {
	return slices.ContainsFunc(strings.Split(os.Getenv(environment), ","), func(w string) bool {
		return strings.TrimSpace(w) == word
	})
}

func casesDir() (string, error) {
	dir := os.Getenv("IKEPULSE_CASES")
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, "..", "shared", "cases")
	}
	// The manifest is what tells the folder from an empty or a foreign one.
	if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
