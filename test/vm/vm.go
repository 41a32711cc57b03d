// Package vm boots Debian's kernels in a virtual machine, for what the
// machine's own kernel lacks or forbids: kernel ESP, fentry programs and BPF
// iterators, and the oldest kernels that are supported. A guest sees the host's file system at
// the host's paths, read-only, and one shared folder that both write; so a
// static test binary, Debian's strongSwan or a shell script run in it as they
// are, and its network is its own.
//
//	k, err := vm.Fetch(ctx, "6.1")
//	result, err := k.Run(ctx, vm.Guest{Command: []string{"/path/to/x.test", "-test.v"}})
//
// The processor is emulated (a guest needs no KVM), so everything takes about
// five to ten times as long. As many guests run at once as the host has CPUs;
// the others wait for one of them.
package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Where Debian puts what a guest is made of.
const (
	qemuPath      = "/usr/bin/qemu-system-x86_64"
	virtiofsdPath = "/usr/lib/qemu/virtiofsd"
	busyboxPath   = "/bin/busybox"
)

// tools are the programs and the packages that have them.
var tools = []struct{ path, pkg string }{
	{qemuPath, "qemu-system-x86"},
	{virtiofsdPath, "qemu-system-common"},
	{busyboxPath, "busybox-static"},
	{"depmod", "kmod"},
	{"modprobe", "kmod"},
	{"apt-get", "apt"},
	{"dpkg", "dpkg"},
	{"certutil", "libnss3-tools"},
}

// Available says what is missing for running every kernel: root, a program, or
// a kernel or libreswan that is neither in the cache nor among the packages that
// apt knows.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("sharing the file system with a guest needs root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool.path); err != nil {
			return fmt.Errorf("%w (package %s)", err, tool.pkg)
		}
	}
	for _, series := range Series() {
		if err := fetchable(series); err != nil {
			return fmt.Errorf("kernel %s: %w", series, err)
		}
	}
	return libreswanFetchable()
}
