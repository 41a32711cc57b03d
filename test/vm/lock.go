package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lock waits for an exclusive lock on one of several files, which it makes. The
// kernel releases it with the process.
func lock(ctx context.Context, paths ...string) (unlock func(), err error) {
	for {
		for _, path := range paths {
			unlock, err := tryLock(path)
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return unlock, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: held by others: %w", strings.Join(paths, " "), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func tryLock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
