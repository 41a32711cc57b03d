//go:build vm

package vm_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/vm"
)

// inGuest names the product's binary to a test that runs in a guest.
const inGuest = "IKEPULSE_IN_GUEST"

// TestMain: in a guest the tests run in namespaces of their own, with a bpffs.
func TestMain(m *testing.M) {
	if os.Getenv(inGuest) == "" {
		os.Exit(m.Run())
	}
	if !lab.Isolated() {
		code, err := lab.Reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	// Each strongSwan gets a /run to itself: files that others need stand
	// elsewhere.
	if err := errors.Join(lab.Enter(), os.Setenv("TMPDIR", "/dev/shm")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// guestTest runs a test of this binary in guests: on the host it boots them and
// judges what the test says there, in a guest it runs body. body gets the
// product's binary.
func guestTest(t *testing.T, body func(t *testing.T, product string)) {
	t.Helper()
	if product := os.Getenv(inGuest); product != "" {
		body(t, product)
		return
	}
	product := filepath.Join(t.TempDir(), "ikepulse")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", product, "../../cmd/ikepulse")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := t.Name()
	onKernels(t, func(t *testing.T, k *vm.Kernel) {
		got := runGuest(t, k, vm.Guest{
			Command: []string{self, "-test.v", "-test.run", "^" + name + "$"},
			Env:     append(environment("root", "bpf", "netns", "strongswan"), inGuest+"="+product),
			// What ESP needs comes by itself, but not before the first handshake times out.
			Modules: []string{"tun", "veth", "xfrm_user", "esp4", "gcm", "ghash_generic", "seqiv", "aesni_intel", "cryptd"},
		})
		t.Logf("%s", got.Output)
		judge(t, got, []string{name})
	})
}
