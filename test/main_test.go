package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// isolated tells that this process is in namespaces of its own, which vanish
// with it: live tests run nowhere else.
var isolated bool

// TestMain runs the tests once more in mount, network and process namespaces of
// their own, with an empty /run and an empty bpffs. Where there are none to be
// had, the live tests say what they need.
func TestMain(m *testing.M) {
	unix.Umask(0o022) // a folder that others may write to holds no configuration
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if !lab.Isolated() {
		code, err := lab.Reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = m.Run()
		}
		os.Exit(code)
	}
	if err := errors.Join(lab.Enter(), lab.OwnTemp()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	isolated = true
	os.Exit(m.Run())
}

// product builds the product, once.
var product = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ikepulse")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "ikepulse")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", path, "../cmd/ikepulse")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/ikepulse: %w\n%s", err, out)
	}
	return path, nil
})
