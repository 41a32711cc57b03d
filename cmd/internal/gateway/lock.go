package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lock holds the instance until the daemon ends.
func (d *daemon) lock(context.Context) error {
	release, err := d.Names.Hold()
	if err == nil {
		d.own(release)
	}
	return err
}

// Hold makes sure that the caller is the only one who runs the instance, and
// tells whoever looks where its control socket is, if it has one.
func (n Names) Hold() (release func() error, err error) {
	err = os.MkdirAll(filepath.Dir(n.Lock), 0o755)
	var f *os.File
	if err == nil {
		f, err = lockFile(n.Lock)
	}
	switch {
	case errors.Is(err, errLocked):
		return nil, fmt.Errorf("instance %s is running already (%s is locked): choose another with --instance", n.Instance, n.Lock)
	case err != nil:
		return nil, err
	}
	release = func() error { return errors.Join(os.Remove(n.Lock), f.Close()) }
	if _, err = f.WriteString(n.Socket + "\n"); err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// errLocked says that another process has the lock.
var errLocked = errors.New("locked")

// lockFile makes an empty file and locks it. A daemon that ends removes its
// own, so the one that was locked may be gone from its place by then.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, err
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
			f.Close()
			if err == unix.EAGAIN || err == unix.EACCES { // either, says POSIX
				err = errLocked
			}
			return nil, err
		}
		mine, errMine := f.Stat()
		there, errThere := os.Stat(path)
		if errMine == nil && errThere == nil && os.SameFile(mine, there) {
			return f, f.Truncate(0)
		}
		f.Close()
	}
}

// Find looks for a daemon of the instance: whether one runs, and where its
// control socket is, or was, if not at its usual place.
func (n *Names) Find() (running bool) {
	f, err := os.Open(n.Lock)
	if err != nil {
		return false
	}
	defer f.Close()
	const longest = 4096
	b, err := io.ReadAll(io.LimitReader(f, longest))
	if path := strings.TrimSpace(string(b)); err == nil && path != "" {
		n.Socket = path
	}
	// Asking for the lock does not take it: a daemon may be about to.
	l := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

// Clear removes the files, rules and routes of a daemon that was killed, in the
// network namespace where it ran; one that runs is left alone. They are gone
// already where the last one ended by itself.
func (n Names) Clear() error {
	if _, err := os.Stat(n.Lock); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	n.Find()
	f, err := lockFile(n.Lock)
	if err != nil {
		return nil // it runs
	}
	errs := []error{n.forgetBarriers()}
	for _, path := range []string{n.Records, n.Socket, n.Lock} {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, f.Close())...)
}
