package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// bench is where one mutant at a time is built and tested. It has a build cache of
// its own, since what is built of a mutant is of no use to anybody again.
type bench struct {
	root, pkg, dir string
	allowed        span
	out            *beginning      // of what the tests and the compiler say
	base           *bench          // where nothing is changed
	kept           map[string]bool // of the cache
	likely         likely
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) make() error {
	if err := os.MkdirAll(b.path("cache"), 0o755); err != nil {
		return err
	}
	return b.setOverlay(nil)
}

// overlay puts source in the place of a file of the tree.
func (b *bench) overlay(file string, source []byte) error {
	if err := os.WriteFile(b.path("mutant.go"), source, 0o644); err != nil {
		return err
	}
	return b.setOverlay(map[string]string{filepath.Join(b.root, file): b.path("mutant.go")})
}

func (b *bench) setOverlay(replace map[string]string) error {
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	return os.WriteFile(b.path("overlay.json"), text, 0o644)
}

// build makes the test's program. Built and run apart from each other, what does
// not compile is told from what fails.
func (b *bench) build(ctx context.Context) error {
	c := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", b.path("overlay.json"), "-o", b.path("test"), "./"+b.pkg)
	c.Dir = b.root
	c.Env = append(os.Environ(), "GOCACHE="+b.path("cache"))
	b.out = new(beginning)
	c.Stderr = b.out
	return c.Run()
}

// test runs the program that was built, or the tests of a pattern, with whatever it
// starts in a group of its own, which is killed when its time is over.
func (b *bench) test(ctx context.Context, run string) (s state, taken span, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.allowed.real)
	defer cancel()
	c := exec.CommandContext(ctx, b.path("test"), "-test.failfast", "-test.paniconexit0", "-test.timeout=0", "-test.run", run)
	c.Dir = filepath.Join(b.root, b.pkg)
	b.out = new(beginning)
	c.Stdout = b.out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	begun := time.Now()
	if err := c.Start(); err != nil {
		return alive, taken, err
	}
	if err := b.allowed.limit(c.Process.Pid); err != nil {
		return alive, taken, errors.Join(err, c.Cancel(), c.Wait())
	}
	err = c.Wait()
	taken = span{time.Since(begun), c.ProcessState.UserTime() + c.ProcessState.SystemTime()}
	switch {
	case err == nil:
		return alive, taken, nil
	case c.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return late, taken, nil
	}
	return killed, taken, nil
}

// shareCache begins with what was built where nothing is changed.
func (b *bench) shareCache() error {
	b.kept = map[string]bool{}
	return fs.WalkDir(os.DirFS(b.base.path("cache")), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		b.kept[name] = true
		to := filepath.Join(b.path("cache"), name)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		return ignoreExisting(os.Link(filepath.Join(b.base.path("cache"), name), to))
	})
}

func ignoreExisting(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// trimCache forgets what the last mutant left there.
func (b *bench) trimCache() error {
	return fs.WalkDir(os.DirFS(b.path("cache")), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || b.kept[name] {
			return err
		}
		if err := os.RemoveAll(filepath.Join(b.path("cache"), name)); err != nil || !d.IsDir() {
			return err
		}
		return fs.SkipDir
	})
}
