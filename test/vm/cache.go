package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// cacheDir is where unpacked packages are kept: IKEPULSE_VM_CACHE, or a folder
// of the user's cache.
func cacheDir() (string, error) {
	if dir := os.Getenv("IKEPULSE_VM_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "ikepulse", "vm"), err
}

// filled calls fetch with the cache, which nobody else fills meanwhile. What
// apt's lists name may be gone from the archive: they are brought up to date once.
func filled[T any](ctx context.Context, fetch func(cache string) (T, error)) (none T, err error) {
	cache, err := cacheDir()
	if err != nil {
		return none, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return none, err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "fetch.lock"))
	if err != nil {
		return none, err
	}
	defer unlock()
	got, err := fetch(cache)
	if err == nil {
		return got, nil
	}
	if errUpdate := run(ctx, cache, "apt-get", "update", "-qq"); errUpdate != nil {
		return none, errors.Join(err, errUpdate)
	}
	return fetch(cache)
}

// unpacked makes dir of a package, which it downloads, unless it is there.
// complete is called with what was unpacked; nil: it is whole as it is.
func unpacked(ctx context.Context, dir, pkg string, complete func(root string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	root := filepath.Join(work, "root")
	err = unpack(ctx, work, root, pkg)
	if err == nil && complete != nil {
		err = complete(root)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", pkg, err)
	}
	// Renamed when it is whole: what stands in the cache can be used.
	return os.Rename(root, dir)
}

// unpack makes root of a package.
func unpack(ctx context.Context, work, root, pkg string) error {
	if err := run(ctx, work, "apt-get", "download", "-qq", pkg); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("the download left %q, %v", found, err)
	}
	return run(ctx, work, "dpkg", "-x", found[0], root)
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// latest returns the folder like pattern that was put into the cache last.
func latest(pattern string) (dir string, ok bool) {
	found, _ := filepath.Glob(pattern) // it is well-formed
	if len(found) == 0 {
		return "", false
	}
	return slices.MaxFunc(found, func(a, b string) int { return made(a).Compare(made(b)) }), true
}

func made(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{} // taken away meanwhile: the oldest of all
	}
	return info.ModTime()
}
