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

// errOthers says that a lock is open to others.
var errOthers = errors.New("open to other users")

// lockFile makes a file and locks it, or fails with ErrRunning. One that is open
// to others is replaced, once: where that does not help, nothing will.
func lockFile(path string) (*os.File, error) {
	f, err := lockOwn(path)
	if !errors.Is(err, errOthers) {
		return f, err
	}
	if err := replace(path); err != nil {
		return nil, err
	}
	f, err = lockOwn(path)
	if errors.Is(err, errOthers) {
		return nil, fmt.Errorf("%w right after it was replaced: stop what makes that file", err)
	}
	return f, err
}

// lockOwn makes a file and locks it, unless it is open to others. A daemon that
// ends removes its own, so the one that was locked may be gone from its place by
// then.
func lockOwn(path string) (*os.File, error) {
	const tries = 100 // which so many daemons would have to end
	for range tries {
		f, err := openOwn(path)
		if err != nil {
			return nil, err
		}
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil && isAt(f, path) {
			return f, nil
		}
		f.Close()
		switch err {
		case nil:
		case unix.EAGAIN, unix.EACCES: // either, says POSIX
			return nil, ErrRunning
		default:
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
	return nil, fmt.Errorf("%s was another file each of %d times that it was locked: use a local file system for %s, such as tmpfs", path, tries, filepath.Dir(path))
}

func openOwn(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := openToOthers(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openToOthers is errOthers where somebody else can open a file, or could when
// an earlier version made it: who may read it may hold a lock on it, which would
// keep us from ours.
func openToOthers(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if mode := st.Mode & 0o777; mode&0o077 != 0 || st.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s, of user %d and mode %04o, is %w", f.Name(), st.Uid, mode, errOthers)
	}
	return nil
}

// replace takes a file that is open to others from its place, unless a daemon
// has it. Two that start at once take turns: else one would remove what the
// other has just made.
func replace(path string) error {
	turn := path + ".new"
	mine, err := lockOwn(turn)
	if errors.Is(err, errOthers) { // and so would any be that we make
		return errors.Join(fmt.Errorf("%w, though made for user %d with mode 0600: use a file system for %s that keeps owners and modes, such as tmpfs",
			err, os.Geteuid(), filepath.Dir(path)), os.Remove(turn))
	}
	if err != nil {
		return err
	}
	return errors.Join(removeOthers(path), os.Remove(turn), mine.Close())
}

// removeOthers removes a file that is open to others, unless a daemon has it.
func removeOthers(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := openToOthers(f); !errors.Is(err, errOthers) {
		return err
	}
	running, err := lockedForWriting(f)
	switch {
	case err != nil:
		return err
	case running:
		return ErrRunning
	}
	return os.Remove(path)
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
