package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// enterNetns moves the whole process into a network namespace, and no other:
// the mount namespace, and with it the host's bpffs, stays. A thread enters it
// and executes the program anew, which then is in it with all its threads.
func enterNetns(name string) error {
	if name == "" {
		return nil
	}
	path := name
	if !strings.Contains(name, "/") {
		path = filepath.Join("/run/netns", name)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("--netns: %w", err)
	}
	defer f.Close()
	inside, err := sameNetns(f)
	if err != nil || inside {
		return err
	}
	runtime.LockOSThread()
	err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	if errors.Is(err, unix.EINVAL) {
		err = errors.New("it is no network namespace")
	}
	if err != nil {
		return fmt.Errorf("--netns: enter %s: %w", path, err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("--netns: run %s again: %w", self, unix.Exec(self, os.Args, os.Environ()))
}

// sameNetns tells whether this thread is in the namespace already, as it is
// after the program has been executed anew.
func sameNetns(f *os.File) (bool, error) {
	var there, here unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &there); err != nil {
		return false, err
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &here); err != nil {
		return false, err
	}
	return there.Dev == here.Dev && there.Ino == here.Ino, nil
}
