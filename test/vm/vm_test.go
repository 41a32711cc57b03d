package vm

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The format is that of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
func TestArchive(t *testing.T) {
	got := string(archive([]file{{name: "bin"}, {"init", []byte("hello")}}))
	zero := "00000000"
	header := func(inode, mode, size, name string) string {
		return "070701" + inode + mode + zero + zero + "00000001" + zero + size + strings.Repeat(zero, 4) + name + zero
	}
	want := header("00000001", "000041ed", zero, "00000004") + "bin\x00\x00\x00" +
		header("00000002", "000081ed", "00000005", "00000005") + "init\x00\x00" + "hello\x00\x00\x00" +
		header("00000003", "000041ed", zero, "0000000b") + "TRAILER!!!\x00\x00\x00\x00"
	if got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestDependency(t *testing.T) {
	const depends = `linux-image-6.12-cloud-amd64
  Depends: linux-base
  Depends: linux-image-6.12.117+deb12-cloud-amd64
  Breaks: linux-image-6.11
`
	name, err := dependency(depends)
	if want := "linux-image-6.12.117+deb12-cloud-amd64"; name != want || err != nil {
		t.Errorf("%q, %v, want %q", name, err, want)
	}
	if name, err := dependency("linux-image-cloud-amd64\n  Depends: linux-base\n"); err == nil {
		t.Errorf("took %q for a kernel", name)
	}
}

func TestPackageVersion(t *testing.T) {
	version, err := packageVersion("Package: libreswan\nVersion: 4.10-2+deb12u1\nDepends: libnss3 (>= 2:3.38)\n")
	if want := "4.10-2+deb12u1"; version != want || err != nil {
		t.Errorf("%q, %v, want %q", version, err, want)
	}
	if version, err := packageVersion("Package: libreswan\n"); err == nil {
		t.Errorf("took %q for a version", version)
	}
}

func TestLoadOrder(t *testing.T) {
	got, err := loadOrder("builtin fuse\ninsmod /m/virtio_ring.ko \ninsmod /m/virtio.ko \ninsmod /m/virtio_ring.ko \n")
	if want := []string{"/m/virtio_ring.ko", "/m/virtio.ko"}; !slices.Equal(got, want) || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := loadOrder("insmod /m/virtiofs.ko.xz\n"); err == nil {
		t.Error("a compressed module was taken")
	}
}

// A quoted word reaches a program as it is.
func TestQuote(t *testing.T) {
	words := []string{"plain", "", "two words", "it's", `"$HOME"`, "a\nb", `\`, "*"}
	out, err := exec.Command("sh", "-c", `printf '%s\0' `+quoteAll(words)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(string(out), "\x00"); !slices.Equal(got[:len(got)-1], words) {
		t.Errorf("%q, want %q", got, words)
	}
}

// Without apt's lists the newest kernel in the cache is taken, and half of an
// unpacked one never is.
func TestNewest(t *testing.T) {
	cache := t.TempDir()
	if k, ok := newest(cache, "6.1"); ok {
		t.Errorf("found %v in an empty cache", k)
	}
	for i, name := range []string{"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-10-cloud-amd64", "unpack-1234"} {
		path := filepath.Join(cache, "6.1", name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	k, ok := newest(cache, "6.1")
	if want := "6.1.0-10-cloud-amd64"; !ok || k.Version != want {
		t.Errorf("%+v, want %s", k, want)
	}
}

func TestFetchUnknownSeries(t *testing.T) {
	t.Setenv("IKEPULSE_VM_CACHE", t.TempDir())
	if k, err := Fetch(t.Context(), "2.4"); err == nil || !strings.Contains(err.Error(), "there are 6.1 and 6.12") {
		t.Errorf("%v, %v", k, err)
	}
}

// As many as there are locks: whoever waits goes on when one is given back, or
// when he no longer wants it.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	var unlock []func()
	for range paths {
		free, err := lock(t.Context(), paths...)
		if err != nil {
			t.Fatal(err)
		}
		unlock = append(unlock, free)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lock(ctx, paths...); !errors.Is(err, context.Canceled) {
		t.Errorf("a third lock: %v", err)
	}
	unlock[0]()
	again, err := lock(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	again()
	unlock[1]()
	if _, err := lock(t.Context(), filepath.Join(dir, "nowhere", "c")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a lock in no folder: %v", err)
	}
}
