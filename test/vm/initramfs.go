package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Places in the guest.
const (
	// Shared is where a guest has the folder that it shares with the host.
	Shared = "/mnt"
	root   = "/host" // the host's file system, until it becomes the guest's
)

// file is an entry of an initramfs; without data a folder.
type file struct {
	name string
	data []byte
}

// archive appends files in the kernel's initramfs format, "newc" cpio.
func archive(files []file) []byte {
	var out bytes.Buffer
	for inode, f := range append(files, file{name: "TRAILER!!!"}) {
		mode := 0o100755
		if f.data == nil {
			mode = 0o040755
		}
		// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
		// rdevminor namesize check
		fmt.Fprintf(&out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			inode+1, mode, 0, 0, 1, 0, len(f.data), 0, 0, 0, 0, len(f.name)+1, 0, f.name)
		pad(&out)
		out.Write(f.data)
		pad(&out)
	}
	return out.Bytes()
}

func pad(out *bytes.Buffer) { out.Write(make([]byte, -out.Len()&3)) }

// bootScript is the first process: it makes the host's file system the root,
// with what must be the guest's own over it, and leaves the rest to runScript.
// The arguments are where the host has the shared folder and the kernel.
const bootScript = `#!/busybox sh
set -e
/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do
	[ ! -e "$module" ] || insmod "$module"
done
mount -t virtiofs root ` + root + `
mount -o bind ` + root + `%[1]s ` + root + Shared + `
mount -o remount,bind,ro ` + root + `
mount -t tmpfs -o mode=755 tmpfs ` + root + `/run
mkdir -p /dev/shm /dev/pts ` + root + `/run/tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
for place in /dev /proc /sys; do
	mount --move $place ` + root + `$place
done
exec switch_root ` + root + ` /bin/sh ` + Shared + `/run
`

// runScript is the first process once the root is the host's. Modules come from
// the kernel's package, also those that the kernel asks for by itself. The
// arguments are modules, a folder, and a command with its environment.
const runScript = `export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/run/tmp HOME=/run
cut -d' ' -f1 /proc/uptime > ` + Shared + `/booted
echo ` + Shared + `/modprobe > /proc/sys/kernel/modprobe
busybox ip link set lo up
for module in %[1]s; do
	` + Shared + `/modprobe $module || echo "modprobe $module: failed" >> ` + Shared + `/output
done
cd %[2]s
env %[3]s >> ` + Shared + `/output 2>&1 < /dev/null
echo $? > ` + Shared + `/exit
echo o > /proc/sysrq-trigger
sleep 60
`

// modprobeScript finds the modules of the kernel's package.
const modprobeScript = `#!/bin/sh
exec /sbin/modprobe -d %s "$@"
`

// initramfs builds the archive that mounts the host's file system.
func (k *Kernel) initramfs(ctx context.Context, shared string) ([]byte, error) {
	busybox, err := os.ReadFile(busyboxPath)
	if err != nil {
		return nil, err
	}
	files := []file{
		{"busybox", busybox}, {"init", fmt.Appendf(nil, bootScript, quote(shared))},
		{name: "bin"}, {name: "proc"}, {name: "sys"}, {name: "dev"}, {name: "modules"}, {name: root[1:]},
	}
	modules, err := k.modules(ctx, "virtiofs", "virtio_pci")
	if err != nil {
		return nil, err
	}
	for i, path := range modules {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, file{fmt.Sprintf("modules/%02d-%s", i, filepath.Base(path)), data})
	}
	return archive(files), nil
}

// modules returns the files of modules and of what they need, in the order in
// which they load; none for those that the kernel has built in.
func (k *Kernel) modules(ctx context.Context, names ...string) (paths []string, err error) {
	args := append([]string{"-d", k.dir, "-S", k.Version, "--show-depends", "-a"}, names...)
	out, err := exec.CommandContext(ctx, "modprobe", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("modprobe --show-depends: %w", err)
	}
	return loadOrder(string(out))
}

func loadOrder(shown string) (paths []string, err error) {
	seen := map[string]bool{}
	for line := range strings.Lines(shown) {
		path, isFile := strings.CutPrefix(strings.TrimSpace(line), "insmod ")
		if !isFile || seen[path] {
			continue
		}
		if filepath.Ext(path) != ".ko" {
			return nil, fmt.Errorf("%s is compressed: it cannot be loaded before the host's file system is there", path)
		}
		seen[path] = true
		paths = append(paths, path)
	}
	return paths, nil
}

// quote makes one word of a shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = quote(word)
	}
	return strings.Join(quoted, " ")
}
