package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
)

// Ensure returns the instance that the options describe: the one that is
// pinned, if it is that, else a new one. Where what is pinned differs and is
// attached, it is left alone, but for its owner: [*MismatchError]. Otherwise it
// is replaced, with its maps if only settings differ, and the interfaces go over
// in their links: no frame passes without a program. Pins of another network
// namespace are never touched: [*NamespaceError].
//
// A program of another version with the same layout takes over maps and
// interfaces without a gap. If the kernel refuses it, the one that is there
// goes on: [Instance.Older] says why.
func Ensure(o Options) (*Instance, error) {
	i, err := ensured(o)
	if err != nil {
		return nil, err
	}
	i.keepTags = o.KeepTags
	return i, nil
}

func ensured(o Options) (*Instance, error) {
	dir, err := o.dir()
	if err = errors.Join(err, o.check()); err != nil {
		return nil, err
	}
	cookie, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	if o.NoPin {
		loaded, err := load(o, cookie)
		if err != nil {
			return nil, err
		}
		return loaded.instance("")
	}
	if err := checkBPFFS(dir); err != nil {
		return nil, err
	}
	unlock, err := lock(dir, true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := sweep(dir); err != nil {
		return nil, err
	}
	found, err := look(dir, cookie)
	if errors.Is(err, ErrNotLoaded) {
		i, err := build(dir, o, cookie, commit)
		if err != nil {
			removeBase(dir)
		}
		return i, err
	}
	if err != nil {
		return nil, err
	}
	defer closeLinks(found.links)
	return found.take(o, cookie)
}

// Open returns a pinned instance as it is; [ErrNotLoaded] if there is none.
// One of another layout is a [*MismatchError], which [Purge] gets rid of. What a
// killed process has left half done beside it is taken away, or put in its place.
func Open(instance string) (*Instance, error) {
	dir, err := Dir(instance)
	if err != nil {
		return nil, err
	}
	return OpenDir(dir)
}

// OpenDir is Open for an instance with a pin directory of its own.
func OpenDir(dir string) (*Instance, error) {
	dir, err := checkDir(dir)
	if err != nil {
		return nil, err
	}
	cookie, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		// ip netns exec hides the host's bpffs: say so, or nobody finds out.
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, ErrNotLoaded), checkBPFFS(dir))
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := sweep(dir); err != nil {
		return nil, err
	}
	found, err := look(dir, cookie)
	if errors.Is(err, ErrNotLoaded) {
		removeBase(dir)
	}
	if err != nil {
		return nil, err
	}
	defer closeLinks(found.links)
	if differs := found.unreadable(found.meta); len(differs) > 0 {
		return nil, errors.Join(found.mismatch(differs), found.Close())
	}
	return found.instance(dir)
}

// load brings a new program with new maps into the kernel.
func load(o Options, cookie uint64) (*objects, error) {
	if err := Probe(); err != nil {
		return nil, err
	}
	clock, prog, err := measure()
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	meta := o.fresh(clock, cookie)
	spec, err := o.spec(meta)
	if err != nil {
		return nil, err
	}
	var loaded objects
	if err := spec.LoadAndAssign(&loaded, nil); err != nil {
		return nil, fmt.Errorf("loading: %w", explain(err))
	}
	if err := meta.Write(loaded.Meta); err != nil {
		return nil, errors.Join(err, loaded.Close())
	}
	return &loaded, nil
}

// measure loads the clock alone: the length of a tick is a constant of the
// rest.
func measure() (*maps.Clock, *ebpf.Program, error) {
	spec, err := bpf.Load()
	if err != nil {
		return nil, nil, err
	}
	var clock struct {
		Program *ebpf.Program `ebpf:"ikepulse_clock"`
	}
	if err := spec.LoadAndAssign(&clock, nil); err != nil {
		return nil, nil, fmt.Errorf("loading: %w", explain(err))
	}
	measured, err := maps.NewClock(clock.Program)
	if err != nil {
		return nil, nil, errors.Join(explain(err), clock.Program.Close())
	}
	return measured, clock.Program, nil
}

// build makes a new instance under construction and lets finish put it in its
// place. Whatever fails, nothing of it is left.
func build(dir string, o Options, cookie uint64, finish func(dir string) error) (*Instance, error) {
	loaded, err := load(o, cookie)
	if err != nil {
		return nil, err
	}
	at := underConstruction(dir)
	var noTables error
	err = func() error {
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
		if err := loaded.Pin(at); err != nil {
			return err
		}
		if err := loaded.XDP.Pin(programPin(at)); err != nil {
			return fmt.Errorf("pinning %s: %w", bpf.ProgXDP, err)
		}
		meta, err := maps.ReadMeta(loaded.Meta)
		if err != nil {
			return err
		}
		noTables = o.pinTables(at, meta, &loaded.Handles)
		return finish(dir)
	}()
	if err != nil {
		return nil, errors.Join(explain(err), os.RemoveAll(at), loaded.Close())
	}
	i, err := loaded.instance(dir)
	if err == nil {
		i.tables = noTables
	}
	return i, err
}
