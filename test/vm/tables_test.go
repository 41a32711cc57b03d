//go:build vm

package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/test/vm"
)

// The packet tables and everything else about program, maps, loader and the
// kernel's states hold on the oldest supported kernel and on a newer one, each
// test of them.
func TestTables(t *testing.T) {
	// Two CPUs where programs race; they are run, not attached.
	for pkg, cpus := range map[string]int{"bpf": 2, "maps": 2, "loader": 1, "ike/xfrm": 1} {
		t.Run(pkg, func(t *testing.T) {
			binary := compile(t, pkg)
			want := list(t, binary)
			onKernels(t, func(t *testing.T, k *vm.Kernel) {
				got := runGuest(t, k, vm.Guest{
					Command: []string{binary, "-test.v"},
					Env:     environment("root", "bpf", "netns", "tun"),
					Dir:     source(t, pkg),
					Modules: []string{"tun", "xfrm_user"},
					CPUs:    cpus,
				})
				judge(t, got, want)
			})
		})
	}
}

// environment requires of a guest what the kernels have, and of the host's
// files what the host requires.
func environment(words ...string) []string {
	if casesPromised() {
		words = append(words, "cases")
	}
	return []string{"IKEPULSE_REQUIRE=" + strings.Join(words, ","), "IKEPULSE_CASES=" + os.Getenv("IKEPULSE_CASES")}
}

func casesPromised() bool {
	return slices.Contains(strings.Split(os.Getenv("IKEPULSE_REQUIRE"), ","), "cases")
}

func source(t *testing.T, pkg string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("../..", pkg))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// compile builds a package's tests, with those that only a guest can run.
func compile(t *testing.T, pkg string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), filepath.Base(pkg)+".test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "vm", "-o", binary, ".")
	cmd.Dir = source(t, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// list returns what a binary would run.
func list(t *testing.T, binary string) (names []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binary, "-test.list", "^(Test|Fuzz|Example)").Output()
	if err != nil {
		t.Fatal(err)
	}
	names = strings.Fields(string(out))
	if len(names) == 0 {
		t.Fatal("no tests")
	}
	return names
}

var verdict = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+)`)

// judge wants every listed test to have passed; without the external cases
// those that need them may be skipped.
func judge(t *testing.T, got vm.Result, want []string) {
	t.Helper()
	counts := map[string]int{}
	for _, found := range verdict.FindAllStringSubmatch(string(got.Output), -1) {
		counts[found[1]]++
		if found[1] == "PASS" || found[1] == "SKIP" && !casesPromised() {
			want = slices.DeleteFunc(slices.Clone(want), func(name string) bool { return name == found[2] })
		}
	}
	t.Logf("%d passed, %d failed, %d skipped", counts["PASS"], counts["FAIL"], counts["SKIP"])
	if got.Exit != 0 || counts["FAIL"] > 0 || len(want) > 0 {
		t.Errorf("exit %d; not passed: %q\n%s", got.Exit, want, got.Output)
	}
}
