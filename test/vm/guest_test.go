//go:build vm

package vm_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/require"
	"github.com/ikepulse/ikepulse/test/vm"
)

// guestLimit is for a machine that does other work, too.
const guestLimit = 25 * time.Minute

// onKernels runs a test once with each kernel, with all at once: an emulated
// machine hardly uses more than one CPU.
func onKernels(t *testing.T, test func(t *testing.T, k *vm.Kernel)) {
	t.Helper()
	require.Have(t, "vm")
	for _, series := range vm.Series() {
		t.Run(series, func(t *testing.T) {
			t.Parallel()
			k, err := vm.Fetch(t.Context(), series)
			if err != nil {
				t.Fatal(err)
			}
			test(t, k)
		})
	}
}

// oldest is for what no kernel makes different.
func oldest(t *testing.T) *vm.Kernel {
	t.Helper()
	require.Have(t, "vm")
	k, err := vm.Fetch(t.Context(), vm.Series()[0])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func runGuest(t *testing.T, k *vm.Kernel, g vm.Guest) vm.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guestLimit)
	defer cancel()
	result, err := k.Run(ctx, g)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: booted in %v, in all %v", k.Version, result.Boot, result.Took.Round(100*time.Millisecond))
	return result
}

// A command runs on that kernel, as root, with the host's files, which it
// cannot change, and a folder that it can; its output and exit code come back.
func TestGuest(t *testing.T) {
	onKernels(t, func(t *testing.T, k *vm.Kernel) {
		shared := t.TempDir()
		script := `uname -r; id -u; echo "$WORD"; pwd; cat "$1"; cat /sys/class/net/*/operstate
			touch "$1.new" || echo refused >&2; touch ` + vm.Shared + `/made; ip link add v0 type veth; ls -d /sys/class/net/v0; exit 3`
		host := filepath.Join(t.TempDir(), "file of the host")
		if err := os.WriteFile(host, []byte("its text\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got := runGuest(t, k, vm.Guest{
			Command: []string{"sh", "-c", script, "sh", host}, Env: []string{"WORD=a 'word'"}, Dir: "/usr/lib", Shared: shared,
		})
		out := strings.ReplaceAll(string(got.Output), "touch: cannot touch '"+host+".new': Read-only file system\n", "")
		want := k.Version + "\n0\na 'word'\n/usr/lib\nits text\nunknown\nrefused\n/sys/class/net/v0\n"
		if out != want || got.Exit != 3 {
			t.Errorf("exit %d, want 3, and\n%swant\n%s", got.Exit, got.Output, want)
		}
		if _, err := os.Stat(filepath.Join(shared, "made")); err != nil {
			t.Error(err)
		}
	})
}

// A guest that is switched off under its command is an error, not a result.
func TestGuestThatDies(t *testing.T) {
	k := oldest(t)
	got, err := k.Run(t.Context(), vm.Guest{Command: []string{"sh", "-c", "echo last words; echo c > /proc/sysrq-trigger"}})
	if err == nil || string(got.Output) != "last words\n" {
		t.Errorf("%v, output %q", err, got.Output)
	}
	if err != nil && !strings.Contains(err.Error(), "sysrq triggered crash") {
		t.Errorf("the console is not in the error: %v", err)
	}
}

// The end of ctx ends the guest.
func TestGuestThatHangs(t *testing.T) {
	k := oldest(t)
	shared := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // ends with ctx
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(shared, "hanging")); err == nil {
				cancel()
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	_, err := k.Run(ctx, vm.Guest{Command: []string{"sh", "-c", "touch " + vm.Shared + "/hanging; sleep 1000"}, Shared: shared})
	if err == nil {
		t.Error("no error")
	}
}
