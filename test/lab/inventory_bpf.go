package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// bpfPrefix begins the names of our programs and maps; the machine has others.
const bpfPrefix = "ikepulse_"

// object is a BPF program, map or link.
type object struct {
	kind    string
	id      uint32
	program uint32 // of a link
	name    string
}

// isIn reports whether the object is held: a pinned link may have no descriptor
// while the owner of its program lives.
func (o object) isIn(held map[holding]bool) bool {
	return held[holding{o.kind, o.id}] || held[holding{"program", o.program}]
}

// bpf records our programs, maps and links by id: ids are never used twice.
// family are the ids of our processes.
func (inv *Inventory) bpf(family map[int]bool) error {
	objects, err := bpfObjects()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, ebpf.ErrNotSupported) {
		return nil // where nobody may ask, nobody has loaded anything for us
	}
	if err != nil {
		return fmt.Errorf("BPF objects: %w", err)
	}
	if len(objects) == 0 {
		return nil
	}
	held, err := heldByOthers(family)
	if err != nil {
		return err
	}
	for _, o := range objects {
		name := fmt.Sprintf("%d %s", o.id, o.name)
		if o.isIn(held) {
			inv.addForeign(o.kind, name)
		} else {
			inv.add(o.kind, name)
		}
	}
	return nil
}

func bpfObjects() ([]object, error) {
	programs, err := each(ebpf.ProgramGetNextID, bpfProgram)
	if err != nil {
		return nil, err
	}
	maps, err := each(ebpf.MapGetNextID, bpfMap)
	if err != nil {
		return nil, err
	}
	links, err := bpfLinks(programs)
	return slices.Concat(programs, maps, links), err
}

// each walks the kernel's ids of one kind and returns those of our objects.
func each[ID ~uint32](next func(ID) (ID, error), describe func(ID) (object, error)) ([]object, error) {
	var objects []object
	for id, err := next(0); ; id, err = next(id) {
		if errors.Is(err, os.ErrNotExist) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		o, err := describe(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(o.name, bpfPrefix) {
			objects = append(objects, o)
		}
	}
}

func bpfProgram(id ebpf.ProgramID) (object, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return object{}, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return object{}, err
	}
	return object{kind: "program", id: uint32(id), name: info.Name}, nil
}

func bpfMap(id ebpf.MapID) (object, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return object{}, err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return object{}, err
	}
	return object{kind: "map", id: uint32(id), name: info.Name}, nil
}

// bpfLinks returns the links of our programs: a link has no name of its own. The
// kernel asks to try again while somebody is making one.
func bpfLinks(programs []object) (links []object, err error) {
	for range 100 {
		if links, err = linksOf(programs); !errors.Is(err, unix.EAGAIN) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return links, err
}

func linksOf(programs []object) ([]object, error) {
	var links []object
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return nil, err
		}
		for _, p := range programs {
			if p.id == uint32(info.Program) {
				links = append(links, object{"bpf-link", uint32(it.ID), p.id, "of " + p.name})
			}
		}
	}
	return links, it.Err()
}

// holding is a descriptor's object.
type holding struct {
	kind string
	id   uint32
}

// heldByOthers returns the BPF objects of which a process that is not in the
// family has a descriptor.
func heldByOthers(family map[int]bool) (map[holding]bool, error) {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil, err
	}
	held := make(map[holding]bool)
	for _, fd := range fds {
		target, err := os.Readlink(fd) // the process or descriptor may be gone
		if err != nil || !strings.HasPrefix(target, "anon_inode:bpf") {
			continue
		}
		process := filepath.Dir(filepath.Dir(fd))
		if pid, err := strconv.Atoi(filepath.Base(process)); err != nil || family[pid] {
			continue
		}
		info, err := os.ReadFile(filepath.Join(process, "fdinfo", filepath.Base(fd)))
		if err == nil {
			noteHeld(held, string(info))
		}
	}
	return held, nil
}

// noteHeld reads the ids from a BPF descriptor's fdinfo. A link's names its
// program, too.
func noteHeld(held map[holding]bool, fdinfo string) {
	kinds := map[string]string{"prog_id": "program", "map_id": "map", "link_id": "bpf-link"}
	for line := range strings.Lines(fdinfo) {
		key, value, _ := strings.Cut(line, ":")
		id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
		if kind, ok := kinds[key]; ok && err == nil {
			held[holding{kind, uint32(id)}] = true
		}
	}
}
