package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Probe says what the kernel lacks of what the program needs, all at once; nil
// is nothing. It changes nothing.
func Probe() error {
	var errs []error
	for _, need := range []struct {
		name string
		have func() error
	}{
		{"XDP programs", func() error { return features.HaveProgramType(ebpf.XDP) }},
		{"syscall programs", func() error { return features.HaveProgramType(ebpf.Syscall) }},
		{"arrays that can be mapped", func() error { return features.HaveMapFlag(features.BPF_F_MMAPABLE) }},
	} {
		switch err := need.have(); {
		case errors.Is(err, ebpf.ErrNotSupported):
			errs = append(errs, fmt.Errorf("this kernel has no %s: 6.1 or newer is needed", need.name))
		case err != nil:
			errs = append(errs, fmt.Errorf("asking the kernel for %s: %w", need.name, explain(err)))
		}
	}
	return errors.Join(errs...)
}

// ProbeFentry says why the kernel does not let a program watch one of its own
// functions, for which lockdown is the usual reason; nil is that it does. It
// changes nothing.
func ProbeFentry() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "ikepulse_probe", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "vfs_read",
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if errors.Is(err, unix.EPERM) && len(missingCapabilities()) == 0 && !inUserNamespace() {
		return errLockdown
	}
	if err != nil {
		return explain(err)
	}
	return prog.Close()
}

// errLockdown is what EPERM means to a process that has every right: nothing
// else refuses these programs and lets XDP's pass.
var errLockdown = errors.New("kernel lockdown: operation not permitted, though this process has every capability")

// netnsCookie returns the kernel's number of this thread's network namespace:
// unlike an inode's it is never used again.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("which network namespace this is: %w", err)
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return 0, fmt.Errorf("which network namespace this is: %w", err)
	}
	return cookie, nil
}
