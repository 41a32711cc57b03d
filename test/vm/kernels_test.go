//go:build vm

package vm_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/test/require"
	"github.com/ikepulse/ikepulse/test/vm"
)

// To look at a part: go test -tags vm ./test/vm -run Kernels/6.12 -packages loader -tests Attach.
var (
	packages = flag.String("packages", "", "only those that `REGEXP` matches")
	tests    = flag.String("tests", "", "only those that `REGEXP` matches")
)

// suites are the packages that run on each kernel, in their order. Programs
// race in the first, on two CPUs; those that attach them have one (see
// [vm.Guest]).
var suites = []struct {
	pkg    string
	second int // whether there is a second CPU: 1 or 0
}{{"test/require", 1}, {"bpf", 1}, {"maps", 1}, {"cmd/internal/replay", 1}, {"loader", 0}, {"ike/xfrm", 0}, {"test/vm/inside", 0}}

// suite is a package's compiled tests.
type suite struct {
	pkg, binary, name string
	second            int
	want              []string // that must pass
}

// TestKernels: the packet tables, the external captures and everything else about
// program, maps, loader, the kernel's states and follow hold on the oldest supported kernel
// and on a newer one, each test of them. A kernel is booted once.
func TestKernels(t *testing.T) {
	require.Have(t, "vm")
	all := build(t)
	product := filepath.Join(t.TempDir(), "ikepulse")
	goTool(t, "../..", "build", "-o", product, "./cmd/ikepulse")
	libreswan, err := vm.Libreswan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	onKernels(t, func(t *testing.T, k *vm.Kernel) {
		shared := t.TempDir()
		runGuest(t, k, vm.Guest{
			Command: []string{"sh", "-c", script(t, all)},
			Env:     append(environment("root", "bpf", "iter", "netns", "tun", "strongswan"), "IKEPULSE_PRODUCT="+product, "IKEPULSE_LIBRESWAN="+libreswan),
			Shared:  shared,
			// What ESP needs comes by itself, but not before the first handshake times out.
			Modules: []string{"tun", "veth", "xfrm_user", "esp4", "gcm", "ghash_generic", "seqiv", "aesni_intel", "cryptd", "vmxnet3", "virtio_net"},
			Wires:   []string{"vmxnet3", "virtio-net-pci"}, // as inside.cards has them
			CPUs:    2,
		})
		for _, s := range all {
			t.Run(s.pkg, func(t *testing.T) { s.judge(t, shared) })
		}
	})
}

func build(t *testing.T) (all []suite) {
	t.Helper()
	only := regexp.MustCompile(*packages)
	for _, of := range suites {
		if !only.MatchString(of.pkg) {
			continue
		}
		s := suite{pkg: of.pkg, second: of.second, name: strings.ReplaceAll(of.pkg, "/", "-")}
		s.binary = filepath.Join(t.TempDir(), s.name+".test")
		goTool(t, source(t, s.pkg), "test", "-c", "-tags", "vm", "-o", s.binary, ".")
		s.want = list(t, s.binary)
		all = append(all, s)
	}
	if len(all) == 0 {
		t.Fatalf("no package is like %q", *packages)
	}
	return all
}

func goTool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// list returns what a binary would run.
func list(t *testing.T, binary string) (names []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binary, "-test.list", "^(Test|Fuzz|Example)").Output()
	if err != nil {
		t.Fatal(err)
	}
	only := regexp.MustCompile(*tests)
	for _, name := range strings.Fields(string(out)) {
		if only.MatchString(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 && *tests == "" {
		t.Fatal("no tests")
	}
	return names
}

// script runs one suite after the other and leaves for each what it said and
// how it ended. In short mode no case of a table is left out, but fewer rounds
// are raced: an emulated CPU takes ten times as long.
func script(t *testing.T, all []suite) string {
	t.Helper()
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "echo %d > /sys/devices/system/cpu/cpu1/online || exit\n", s.second)
		at := filepath.Join(vm.Shared, s.name)
		fmt.Fprintf(&b, "cd '%s'\nbegun=$(cut -d' ' -f1 /proc/uptime)\n'%s' -test.v -test.short -test.run '%s' > %s.out 2>&1\n"+
			"echo $? $begun $(cut -d' ' -f1 /proc/uptime) > %s.end\n", source(t, s.pkg), s.binary, *tests, at, at)
	}
	return b.String()
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

var (
	verdict = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (\S+)`)
	// telling are lines worth reading though all is well.
	telling = regexp.MustCompile(`verifier: .*`)
)

// judge wants every listed test to have passed; without the external cases
// those that need them may be skipped.
func (s *suite) judge(t *testing.T, shared string) {
	t.Helper()
	out, _ := os.ReadFile(filepath.Join(shared, s.name+".out"))
	end, _ := os.ReadFile(filepath.Join(shared, s.name+".end"))
	var exit int
	var from, to float64 // by the guest's clock
	if _, err := fmt.Sscan(string(end), &exit, &from, &to); err != nil {
		t.Fatalf("it did not end: %q, %v\n%s", end, err, out)
	}
	want, counts := slices.Clone(s.want), map[string]int{}
	for _, found := range verdict.FindAllStringSubmatch(string(out), -1) {
		counts[found[1]]++
		if found[1] == "PASS" || found[1] == "SKIP" && !casesPromised() {
			want = slices.DeleteFunc(want, func(name string) bool { return name == found[2] })
		}
	}
	t.Logf("%s: %d passed, %d failed, %d skipped in %.0f s", s.pkg, counts["PASS"], counts["FAIL"], counts["SKIP"], to-from)
	for _, line := range telling.FindAllString(string(out), -1) {
		t.Log(strings.TrimSpace(line))
	}
	if exit != 0 || counts["FAIL"] > 0 || len(want) > 0 {
		t.Errorf("exit %d; not passed: %q\n%s", exit, want, out)
	}
}
