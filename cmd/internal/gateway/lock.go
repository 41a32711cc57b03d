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

	"github.com/ikepulse/ikepulse/cmd/internal/ownership"
)

// ErrRunning says that a daemon holds the instance.
var ErrRunning = errors.New("it is running")

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
	dir := filepath.Dir(n.Lock)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := oursAlone(dir); err != nil {
		return nil, err
	}
	f, err := lockFile(n.Lock)
	switch {
	case errors.Is(err, ErrRunning):
		return nil, fmt.Errorf("instance %s is running already (%s is locked): choose another with --instance", n.Instance, n.Lock)
	case err != nil:
		return nil, err
	}
	release = func() error { return errors.Join(remove(n.where()), os.Remove(n.Lock), f.Close()) }
	if err := n.tellWhere(); err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// oursAlone is nil for a directory in which nobody else can make or replace a
// file.
func oursAlone(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory; remove it", dir)
	}
	if complaint := ownership.Complaint(info); complaint != "" {
		return fmt.Errorf("%s: %s", dir, complaint)
	}
	return nil
}

// lockFile makes a file and locks it, or fails with ErrRunning. A daemon that
// ends removes its own, so the one that was locked may be gone from its place
// by then.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if opened, err := openToOthers(f); err != nil || opened {
			if err == nil {
				err = replace(path, f)
			}
			f.Close()
			if err != nil {
				return nil, err
			}
			continue
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
			f.Close()
			if err == unix.EAGAIN || err == unix.EACCES { // either, says POSIX
				err = ErrRunning
			}
			return nil, err
		}
		if isAt(f, path) {
			return f, nil
		}
		f.Close()
	}
}

// openToOthers tells whether somebody else can open a file, or could when an
// earlier version made it: who may read it may hold a lock on it, which would
// keep us from ours.
func openToOthers(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, err
	}
	return st.Mode&0o077 != 0 || st.Uid != uint32(os.Geteuid()), nil
}

// replace takes a file that is open to others from its place, unless a daemon
// has it. Two that start at once take turns: else one would remove what the
// other has just made.
func replace(path string, old *os.File) error {
	turn := path + ".new"
	mine, err := lockFile(turn)
	if err != nil {
		return err
	}
	running, err := lockedForWriting(old)
	switch {
	case err != nil:
	case running:
		err = ErrRunning
	case isAt(old, path):
		err = os.Remove(path)
	}
	return errors.Join(err, os.Remove(turn), mine.Close())
}

// isAt tells whether a file is still in its place.
func isAt(f *os.File, path string) bool {
	mine, errMine := f.Stat()
	there, errThere := os.Lstat(path)
	return errMine == nil && errThere == nil && os.SameFile(mine, there)
}

// lockedForWriting tells whether a daemon holds a file; a lock that a reader has
// on it does not count. Asking takes no lock: a daemon may be about to.
func lockedForWriting(f *os.File) (bool, error) {
	l := unix.Flock_t{Type: unix.F_RDLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l)
	return l.Type == unix.F_WRLCK, err
}

// where is the file that tells everybody where the control socket is: the lock
// is closed to the group that may use the socket.
func (n Names) where() string { return strings.TrimSuffix(n.Lock, ".lock") + ".where" }

func (n Names) tellWhere() error {
	f, err := os.OpenFile(n.where(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(n.Socket + "\n")
	return errors.Join(err, f.Chmod(0o644), f.Close()) // whatever the umask
}

// Find looks for a daemon of the instance: whether one runs, and where its
// control socket is, or was, if not at its usual place. Where the lock is
// another user's only its existence can be seen: that is an error.
func (n *Names) Find() (running bool, err error) {
	n.findSocket()
	f, err := os.OpenFile(n.Lock, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return lockedForWriting(f)
}

func (n *Names) findSocket() {
	f, err := os.OpenFile(n.where(), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	const longest = 4096
	b, err := io.ReadAll(io.LimitReader(f, longest))
	if path := strings.TrimSpace(string(b)); err == nil && path != "" {
		n.Socket = path
	}
}

// Clear removes the files, rules and routes of a daemon that was killed, in the
// network namespace where it ran; one that runs is left alone, and the error is
// ErrRunning then. They are gone already where the last one ended by itself.
func (n Names) Clear() error {
	if _, err := os.Lstat(n.Lock); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := oursAlone(filepath.Dir(n.Lock)); err != nil {
		return err
	}
	f, err := lockFile(n.Lock)
	if err != nil {
		return err
	}
	n.findSocket()
	errs := []error{n.forgetBarriers()}
	for _, path := range []string{n.Records, n.Socket, n.where(), n.Lock} {
		errs = append(errs, remove(path))
	}
	return errors.Join(append(errs, f.Close())...)
}

// remove removes a file that may be gone.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
