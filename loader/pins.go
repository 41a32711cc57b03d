package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An instance is built beside its place and renamed into it, in exchange for
// what it replaces. What a killed process leaves there is swept by the next one
// that holds the lock.
func underConstruction(dir string) string {
	return filepath.Join(filepath.Dir(dir), "_new_"+filepath.Base(dir))
}

// checkBPFFS returns an error that says what to do when dir would not be in a
// BPF file system.
func checkBPFFS(dir string) error {
	at := dir
	var stat unix.Statfs_t
	err := unix.Statfs(at, &stat)
	for ; errors.Is(err, unix.ENOENT) && at != "/"; err = unix.Statfs(at, &stat) {
		at = filepath.Dir(at)
	}
	if err != nil {
		return fmt.Errorf("pin directory %s: %w", dir, err)
	}
	if uint32(stat.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s: %w; mount one (mount -t bpf bpf %s) or go on without (--no-pin)", dir, ErrNoBPFFS, bpffs)
	}
	return nil
}

// lockLimit is how long another process may take over the same directory:
// attaching waits for every CPU, which took 20 s on a machine with too much to do.
const lockLimit = 30 * time.Second

// lock waits for its turn to look at and change the instances beside dir. The
// directory that holds them is made if create is set; if it is not there, the
// error wraps os.ErrNotExist. The lock is the directory's own, so a process
// that dies gives it up, and nothing is left of it.
func lock(dir string, create bool) (unlock func(), err error) {
	parent := filepath.Dir(dir)
	for deadline := time.Now().Add(lockLimit); ; {
		if create {
			if err := os.MkdirAll(parent, 0o700); err != nil {
				return nil, explain(err)
			}
		}
		f, err := os.Open(parent)
		switch {
		case errors.Is(err, fs.ErrNotExist) && create:
			continue // removed with its last instance just now
		case err != nil:
			return nil, err
		}
		err = wait(f, deadline)
		if err == nil && still(f, parent) {
			return func() { _ = f.Close() }, nil // which unlocks
		}
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("waiting for another process at %s: %w", parent, err)
		}
	}
}

func wait(f *os.File, deadline time.Time) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it holds the lock for more than %v", lockLimit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// still reports whether path is the directory that f is.
func still(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// sweep removes what killed processes left beside dir. Pins of links go where
// they were going: without one, an interface would lose its program. The caller
// has the lock.
func sweep(dir string) error {
	err := moveLinkPins(underConstruction(dir), dir)
	if err != nil && !errors.Is(err, fs.ErrExist) { // attached since, to an interface that came back
		return err
	}
	return os.RemoveAll(underConstruction(dir))
}

// moveLinkPins moves the pins of links, and the records beside them, from one
// directory to another. One that is not there has none, and takes none.
func moveLinkPins(from, to string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, entry := range entries {
		if !goesAlong(entry.Name()) {
			continue
		}
		err := rename(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()), unix.RENAME_NOREPLACE)
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// goesAlong tells that a pin belongs to an interface, whatever the maps are.
func goesAlong(pin string) bool {
	return slices.ContainsFunc([]string{linkPrefix, tagsPrefix, handPrefix}, func(prefix string) bool { return strings.HasPrefix(pin, prefix) })
}

// commit puts what was built in its place, which is what makes it exist.
func commit(dir string) error {
	// An empty directory is no instance; a full one is not removed by this.
	_ = os.Remove(dir)
	return os.Rename(underConstruction(dir), dir)
}

// exchange is commit where something stands already, in one step. A second one
// takes the first back.
func exchange(dir string) error {
	return rename(underConstruction(dir), dir, unix.RENAME_EXCHANGE)
}

func rename(from, to string, flags uint) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Purge removes every pin in dir, whatever it is and whoever made it: maps of
// a version that this one cannot read, or of a namespace that is gone. The
// program leaves every interface that it is attached to by these pins.
func Purge(dir string) error {
	dir, err := checkDir(dir)
	if err != nil {
		return err
	}
	unlock, err := lock(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return purge(dir)
}

// purge is Purge under the lock.
func purge(dir string) error {
	if err := checkBPFFS(dir); err != nil {
		return err // nothing of ours, so nothing to remove
	}
	if err := sweep(dir); err != nil {
		return err
	}
	links, err := pinnedLinks(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		errs = append(errs, l.leave())
	}
	for _, name := range recorded(dir) { // of one who was killed between the record and the link
		errs = append(errs, restoreTags(dir, name))
	}
	if err := errors.Join(append(errs, os.RemoveAll(dir))...); err != nil {
		return err
	}
	removeBase(dir)
	return nil
}

// removeBase removes our own directory with its last instance, of which nothing
// but its directory may be left. The caller has the lock.
func removeBase(dir string) {
	_ = os.Remove(dir) // unless it is not empty
	if filepath.Dir(dir) == base {
		_ = os.Remove(base) // unless it holds other instances
	}
}

// A link's pin carries the interface's name. bpffs takes no dot, which
// eth0.100 has; no interface's name has the percent sign.
const linkPrefix, dot = "link_", "%2e"

func linkPin(dir, ifname string) string {
	return filepath.Join(dir, linkPrefix+strings.ReplaceAll(ifname, ".", dot))
}

// linkedInterface is the reverse of linkPin; ok is false for other pins.
func linkedInterface(pin string) (ifname string, ok bool) {
	escaped, ok := strings.CutPrefix(filepath.Base(pin), linkPrefix)
	return strings.ReplaceAll(escaped, dot, "."), ok
}
