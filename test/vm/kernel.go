package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// packages are the supported ends of the range of kernels, each by the package
// that always depends on the newest of its series.
var packages = map[string]string{
	"6.1":  "linux-image-cloud-amd64",
	"6.12": "linux-image-6.12-cloud-amd64",
}

// Series returns the kernels that can be fetched, the oldest first.
func Series() []string { return []string{"6.1", "6.12"} }

// Kernel is an unpacked package.
type Kernel struct {
	Series  string // "6.1"
	Version string // as uname -r prints it
	dir     string
}

func (k *Kernel) image() string { return filepath.Join(k.dir, "boot", "vmlinuz-"+k.Version) }

// Fetch returns the newest kernel of a series that apt knows, from the cache
// or by downloading it there; without apt's lists, the newest in the cache.
// Nothing is installed. What apt's lists name may be gone from the archive: they
// are brought up to date once.
func Fetch(ctx context.Context, series string) (*Kernel, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "fetch.lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	k, err := fetch(ctx, cache, series)
	if err == nil {
		return k, nil
	}
	if errUpdate := run(ctx, cache, "apt-get", "update", "-qq"); errUpdate != nil {
		return nil, errors.Join(err, errUpdate)
	}
	return fetch(ctx, cache, series)
}

func fetch(ctx context.Context, cache, series string) (*Kernel, error) {
	name, err := resolve(ctx, series)
	if err != nil {
		if k, cached := newest(cache, series); cached {
			return k, nil
		}
		return nil, err
	}
	return obtain(ctx, cache, series, name)
}

// fetchable is Fetch without fetching.
func fetchable(series string) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	if _, cached := newest(cache, series); cached {
		return nil
	}
	_, err = resolve(context.Background(), series)
	return err
}

var imagePackage = regexp.MustCompile(`(?m)^ *Depends: (linux-image-([0-9]\S*))$`)

// resolve returns the package that holds a series' newest kernel.
func resolve(ctx context.Context, series string) (name string, err error) {
	pkg, ok := packages[series]
	if !ok {
		return "", fmt.Errorf("no kernel %s; there are %s", series, strings.Join(Series(), " and "))
	}
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("apt knows no package %s: apt-get update may help", pkg)
	}
	return dependency(string(out))
}

func dependency(depends string) (name string, err error) {
	found := imagePackage.FindStringSubmatch(depends)
	if found == nil {
		return "", fmt.Errorf("no kernel among the dependencies:\n%s", depends)
	}
	return found[1], nil
}

// obtain returns the kernel of a package, which it downloads if need be.
func obtain(ctx context.Context, cache, series, name string) (*Kernel, error) {
	k := &Kernel{
		Series: series, Version: strings.TrimPrefix(name, "linux-image-"),
		dir: filepath.Join(cache, series, name),
	}
	if _, err := os.Stat(k.dir); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(filepath.Dir(k.dir), 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(filepath.Dir(k.dir), "unpack-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	if err := unpack(ctx, work, name, k.Version); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// Renamed when it is whole: what stands in the cache is a kernel.
	return k, os.Rename(filepath.Join(work, "root"), k.dir)
}

// unpack makes work/root of a package.
func unpack(ctx context.Context, work, name, version string) error {
	root := filepath.Join(work, "root")
	if err := run(ctx, work, "apt-get", "download", "-qq", name); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("the download left %q, %v", found, err)
	}
	return errors.Join(
		run(ctx, work, "dpkg", "-x", found[0], root),
		run(ctx, work, "depmod", "-b", root, version))
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// newest returns the series' kernel that was put into the cache last.
func newest(cache, series string) (*Kernel, bool) {
	found, _ := filepath.Glob(filepath.Join(cache, series, "linux-image-*")) // the pattern is well-formed
	if len(found) == 0 {
		return nil, false
	}
	dir := slices.MaxFunc(found, func(a, b string) int { return made(a).Compare(made(b)) })
	return &Kernel{Series: series, Version: strings.TrimPrefix(filepath.Base(dir), "linux-image-"), dir: dir}, true
}

func made(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{} // taken away meanwhile: the oldest of all
	}
	return info.ModTime()
}
