package vm

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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
// Nothing is installed.
func Fetch(ctx context.Context, series string) (*Kernel, error) {
	return filled(ctx, func(cache string) (*Kernel, error) { return fetch(ctx, cache, series) })
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
	return k, unpacked(ctx, k.dir, name, func(root string) error {
		return run(ctx, root, "depmod", "-b", root, k.Version)
	})
}

// newest returns the series' kernel that was put into the cache last.
func newest(cache, series string) (*Kernel, bool) {
	dir, ok := latest(filepath.Join(cache, series, "linux-image-*"))
	return &Kernel{Series: series, Version: strings.TrimPrefix(filepath.Base(dir), "linux-image-"), dir: dir}, ok
}
