package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidDumps keeps what this process holds out of core files and from the other
// processes of its user: nearly every command reads a secret.
func forbidDumps() error {
	err := errors.Join(unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0), unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
	if err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
