package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// What is tried, in the folder where it is built: the product, and the benchmark
// of the bare cryptography, which no other module may import.
const (
	product = "ikepulse"
	bare    = "suite.test"
)

// build makes both, static, as they are released.
func build(dir string) error {
	const module = "github.com/ikepulse/ikepulse/"
	for _, args := range [][]string{
		{"build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, product), module + "cmd/ikepulse"},
		{"test", "-c", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, bare), module + "ike/internal/suite"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %v: %w\n%s", args, err, out)
		}
	}
	return nil
}
