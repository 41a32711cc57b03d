package require

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func probeRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("effective uid is %d", uid)
	}
	return nil
}

// probeNetns starts a process in a network namespace of its own. A thread of
// this process would do, but not the main one, which the runtime never ends.
func probeNetns() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return cmd.Run()
}

func probeTUN() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// probeBPF loads the smallest XDP program: the syscall alone may be allowed
// where programs of this type are not.
func probeBPF() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "ikepulse_probe",
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	if err != nil {
		return err
	}
	return prog.Close()
}

// probeIterator loads the smallest program that walks a map: a kernel may allow
// XDP and refuse all that belong to tracing.
func probeIterator() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "ikepulse_probe",
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceIter,
		AttachTo:     "bpf_map_elem",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	if err != nil {
		return err
	}
	return prog.Close()
}

// probeStrongSwan wants charon with user-space ESP, and swanctl to steer it.
func probeStrongSwan() error {
	_, control := exec.LookPath("swanctl")
	_, daemon := exec.LookPath("/usr/lib/ipsec/charon")
	_, plugin := os.Stat("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so")
	return errors.Join(control, daemon, plugin)
}

// probeBpftool wants the tool that people read our maps with.
func probeBpftool() error {
	return exec.Command("bpftool", "version").Run()
}
