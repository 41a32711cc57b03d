package vm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
)

// Libreswan returns the folder of an unpacked libreswan, as [Fetch] returns a
// kernel: its package cannot be installed beside strongSwan's. What it is linked
// with must be installed.
func Libreswan(ctx context.Context) (dir string, err error) {
	dir, err = filled(ctx, func(cache string) (string, error) { return libreswan(ctx, cache) })
	if err != nil {
		return "", err
	}
	// It tells of a library that is missing, and which.
	return dir, run(ctx, dir, filepath.Join(dir, "usr/libexec/ipsec/pluto"), "--version")
}

func libreswan(ctx context.Context, cache string) (dir string, err error) {
	version, err := candidate(ctx)
	if err != nil {
		if dir, cached := latest(libreswans(cache)); cached {
			return dir, nil
		}
		return "", err
	}
	dir = filepath.Join(cache, "libreswan", "libreswan-"+version)
	return dir, unpacked(ctx, dir, "libreswan="+version, nil)
}

// libreswans is the pattern of those in the cache.
func libreswans(cache string) string { return filepath.Join(cache, "libreswan", "libreswan-*") }

// libreswanFetchable is Libreswan without fetching.
func libreswanFetchable() error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	if _, cached := latest(libreswans(cache)); cached {
		return nil
	}
	_, err = candidate(context.Background())
	return err
}

// candidate returns the version that apt would install.
func candidate(ctx context.Context) (version string, err error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", "libreswan").Output()
	if err != nil {
		return "", errors.New("apt knows no package libreswan: apt-get update may help")
	}
	return packageVersion(string(out))
}

var versionField = regexp.MustCompile(`(?m)^Version: (\S+)$`)

func packageVersion(shown string) (version string, err error) {
	found := versionField.FindStringSubmatch(shown)
	if found == nil {
		return "", fmt.Errorf("no version of the package in:\n%s", shown)
	}
	return found[1], nil
}
