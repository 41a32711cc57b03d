package lab

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// xdpPass is the verdict XDP_PASS of linux/bpf.h.
const xdpPass = 2

// attachReceiver attaches a program that passes everything, in the calling
// thread's namespace, until the lab is closed.
func attachReceiver(l *Lab, ifindex int) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         bpfPrefix + "lab",
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	if err != nil {
		return err
	}
	defer prog.Close() // the link holds it
	attached, err := link.AttachXDP(link.XDPOptions{
		Program: prog, Interface: ifindex, Flags: link.XDPDriverMode,
	})
	if err != nil {
		return err
	}
	return l.own(attached.Close)
}
