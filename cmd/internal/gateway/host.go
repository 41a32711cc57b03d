package gateway

import (
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/records"
	"github.com/ikepulse/ikepulse/maps"
)

// Memory is what a capacity takes.
type Memory struct {
	Maps    int64 // the kernel's, from the start
	Records int64 // of the records' file, with every tunnel up
}

// MemoryFor adds up what the kernel allocates for maps of that capacity; what
// it does not tell of a hash entry is 48 bytes, and 16 of its bucket. What it
// has once a CPU, and a map of its own, is too little to count.
func MemoryFor(capacity int) Memory {
	const hashEntry = 48 + 16
	m := Memory{Records: int64(capacity) * records.Size}
	spec, err := maps.Spec(capacity)
	if err != nil {
		return m
	}
	for _, name := range []string{bpf.MapHot, bpf.MapSAs, bpf.MapPeers, bpf.MapNear, bpf.MapLocals, bpf.MapEvents} {
		s := spec.Maps[name]
		if s.Type == ebpf.RingBuf {
			m.Maps += int64(s.MaxEntries)
			continue
		}
		each := (s.ValueSize + 7) &^ 7
		if s.Type == ebpf.Hash {
			each += (s.KeySize+7)&^7 + hashEntry
		}
		m.Maps += int64(each) * int64(s.MaxEntries)
	}
	return m
}

// Finding is how one thing is on this host.
type Finding struct {
	Name, Text string
}

// LookAtHost says what this host has of what a gateway needs. It needs root,
// and finds nothing without.
func LookAtHost(c *config.Config) []Finding {
	if os.Geteuid() != 0 {
		return nil
	}
	return lookAround(c).findings(c)
}

func saying(well string, err error) string {
	if err != nil {
		return oneLine(err)
	}
	return well
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func isFileSystem(path string, magic int64) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && int64(fs.Type) == magic
}

func openable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
