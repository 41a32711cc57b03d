package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Guest is one command to run on a kernel, as root.
type Guest struct {
	Command []string // a path of the host, and arguments
	Env     []string // beside PATH, HOME and TMPDIR: "NAME=value"
	Dir     string   // a path of the host; "": /
	Shared  string   // the host's folder at [Shared]; "": a temporary one
	Modules []string // loaded first; others come when the kernel needs them
	Memory  int      // MiB; 0: 1024
	Wires   []string // each a wire of two network cards of that model, such as vmxnet3: see [WireMAC]

	// CPUs is how many there are; 0: one. All but the first are off line until
	// the command writes 1 to /sys/devices/system/cpu/cpuN/online. An emulated
	// CPU may run an old form of code that another has changed: with two, a
	// kernel that rewrites itself crashes now and then, as 6.12 does while it
	// boots, or where XDP is attached while frames come.
	CPUs int
}

// Result is how a command ended.
type Result struct {
	Output []byte        // its standard output and error
	Exit   int           // its exit code
	Boot   time.Duration // from power on to the command, by the guest's clock
	Took   time.Duration // in all, by the host's
}

const defaultMemory = 1024

// Run boots the kernel, runs the command, switches off and tells how it ended.
// An error means that the guest did not: its console is in the message. When
// ctx is done the guest is ended at once.
func (k *Kernel) Run(ctx context.Context, g Guest) (Result, error) {
	cache, err := cacheDir()
	if err != nil {
		return Result{}, err
	}
	unlock, err := lock(ctx, turns(cache)...)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	work, err := os.MkdirTemp("", "ikepulse-vm-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(work)
	if g.Shared == "" {
		g.Shared = filepath.Join(work, "shared")
		if err := os.Mkdir(g.Shared, 0o755); err != nil {
			return Result{}, err
		}
	}
	begin := time.Now()
	console, err := k.boot(ctx, work, &g)
	if err == nil {
		var result Result
		if result, err = g.result(); err == nil {
			result.Took = time.Since(begin)
			return result, nil
		}
	}
	said, _ := os.ReadFile(filepath.Join(g.Shared, "output")) // what there is
	return Result{Output: said}, fmt.Errorf("kernel %s: %w\n%s\n%s", k.Version, err, tail(console), tail(said))
}

// turns are as many as the host has CPUs.
func turns(cache string) (paths []string) {
	for i := range runtime.NumCPU() {
		paths = append(paths, filepath.Join(cache, fmt.Sprintf("run-%d.lock", i)))
	}
	return paths
}

// boot runs the guest to its end and returns what its console said.
func (k *Kernel) boot(ctx context.Context, work string, g *Guest) (console []byte, err error) {
	initrd := filepath.Join(work, "initrd")
	image, err := k.initramfs(ctx, g.Shared)
	if err == nil {
		err = os.WriteFile(initrd, image, 0o600)
	}
	if err == nil {
		err = g.prepare(k)
	}
	if err != nil {
		return nil, err
	}
	// The kernel ends both programs with the thread that started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	socket := filepath.Join(work, "virtiofs")
	var out bytes.Buffer
	files := command(ctx, &out, virtiofsdPath, "--socket-path="+socket, "-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always")
	if err := files.Start(); err != nil {
		return nil, err
	}
	var screen bytes.Buffer
	err = awaitSocket(ctx, socket)
	if err == nil {
		err = command(ctx, &screen, qemuPath, k.qemuArgs(g, socket, initrd)...).Run()
	}
	_ = files.Process.Kill() // it ends with qemu, unless there was none
	_ = files.Wait()         // killed, or not: it has done its work
	return append(out.Bytes(), screen.Bytes()...), err
}

func (k *Kernel) qemuArgs(g *Guest, socket, initrd string) []string {
	memory, cpus := g.Memory, max(g.CPUs, 1)
	if memory == 0 {
		memory = defaultMemory
	}
	return append(wires(g.Wires), []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(memory),
		"-nographic", "-nic", "none", "-no-reboot",
		// virtiofs reads the guest's memory: it must be shared.
		"-object", fmt.Sprintf("memory-backend-memfd,id=mem,size=%dM,share=on", memory), "-numa", "node,memdev=mem",
		"-chardev", "socket,id=files,path=" + socket, "-device", "vhost-user-fs-pci,chardev=files,tag=root",
		"-kernel", k.image(), "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 maxcpus=1",
	}...)
}

// WireMAC is the address of the card at an end, 0 or 1, of a guest's wire: by
// it the guest finds its cards, which nothing else is connected to.
func WireMAC(wire, end int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 'w', 'i', 'r', byte(wire), byte(end)}
}

func wires(models []string) (args []string) {
	for wire, model := range models {
		for end := range 2 {
			id := fmt.Sprintf("w%de%d", wire, end)
			args = append(args, "-netdev", fmt.Sprintf("hubport,id=%s,hubid=%d", id, wire),
				"-device", fmt.Sprintf("%s,netdev=%s,mac=%v,romfile=", model, id, WireMAC(wire, end)))
		}
	}
	return args
}

// command is a child that stays behind the machine's other work and ends with
// this process.
func command(ctx context.Context, out *bytes.Buffer, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	return cmd
}

func awaitSocket(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("virtiofsd offers no socket: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// prepare leaves the guest's scripts, and nothing of an earlier guest.
func (g *Guest) prepare(k *Kernel) error {
	for _, name := range []string{"output", "exit", "booted"} {
		if err := os.Remove(filepath.Join(g.Shared, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	dir := g.Dir
	if dir == "" {
		dir = "/"
	}
	words := quoteAll(append(append([]string(nil), g.Env...), g.Command...))
	return errors.Join(
		os.WriteFile(filepath.Join(g.Shared, "modprobe"), fmt.Appendf(nil, modprobeScript, quote(k.dir)), 0o755),
		os.WriteFile(filepath.Join(g.Shared, "run"), fmt.Appendf(nil, runScript, quoteAll(g.Modules), quote(dir), words), 0o644))
}

// result reads what the guest left.
func (g *Guest) result() (r Result, err error) {
	exit, err := g.number("exit")
	if err != nil {
		return r, fmt.Errorf("the guest ended before its command: %w", err)
	}
	booted, err := g.number("booted")
	if err != nil {
		return r, err
	}
	r.Output, err = os.ReadFile(filepath.Join(g.Shared, "output"))
	r.Exit, r.Boot = int(exit), time.Duration(booted*float64(time.Second))
	return r, err
}

func (g *Guest) number(name string) (float64, error) {
	text, err := os.ReadFile(filepath.Join(g.Shared, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
}

// tail is the end of a text that may be long.
func tail(text []byte) []byte { return text[max(0, len(text)-8000):] }
