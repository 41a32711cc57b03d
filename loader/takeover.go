package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
)

// found is what a pin directory holds, opened.
type found struct {
	objects
	dir   string
	meta  maps.Meta
	asked Options    // by whoever takes it over
	alien string     // why meta cannot be read, "" if it can
	links []attached // closed by whoever called look
}

// look opens what is pinned in dir. Nothing there is [ErrNotLoaded], something
// of another namespace a [*NamespaceError], something incomplete a
// [*MismatchError]. The caller has the lock.
func look(dir string, cookie uint64) (*found, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotLoaded)
	}
	if err != nil {
		return nil, err
	}
	f := &found{dir: dir}
	if f.links, err = pinnedLinks(dir); err != nil {
		return nil, err
	}
	if err := f.open(cookie); err != nil {
		closeLinks(f.links)
		return nil, err
	}
	return f, nil
}

func (f *found) open(cookie uint64) error {
	var err error
	f.Handles, err = maps.LoadPinned(f.dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		// Another layout has other maps; its meta is where ours is.
		f.alien = err.Error()
		f.Meta, err = ebpf.LoadPinnedMap(filepath.Join(f.dir, bpf.MapMeta), nil)
		err = opening(bpf.MapMeta, err)
	}
	if err == nil {
		f.XDP, err = ebpf.LoadPinnedProgram(programPin(f.dir), nil)
		err = opening(bpf.ProgXDP, err)
	}
	if err == nil {
		err = f.checkNamespace(cookie)
	}
	if err == nil {
		meta, errMeta := maps.ReadMeta(f.Meta)
		if f.meta = meta; errMeta != nil {
			f.alien = errMeta.Error()
		}
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		f.alien = err.Error()
		err = f.mismatch([]string{f.alien})
	}
	return errors.Join(explain(err), f.Close())
}

func opening(name string, err error) error {
	if err != nil {
		err = fmt.Errorf("opening the pin of %s: %w", name, err)
	}
	return err
}

func (f *found) checkNamespace(cookie uint64) error {
	theirs, err := maps.NetnsCookieOf(f.Meta)
	if err == nil && theirs != cookie {
		err = &NamespaceError{Dir: f.dir, Theirs: theirs, Ours: cookie}
	}
	return err
}

// unreadable says why the maps are not those of this version with these
// settings.
func (f *found) unreadable(m maps.Meta) []string {
	if f.alien != "" {
		return []string{f.alien}
	}
	spec, err := maps.SpecFor(m)
	if err != nil {
		return []string{err.Error()}
	}
	return maps.Differences(spec, f.Handles)
}

// mismatch names the interfaces that hold the difference in place.
func (f *found) mismatch(differs []string) error {
	e := &MismatchError{Dir: f.dir, Differs: differs, Whole: len(f.unreadable(f.meta)) > 0}
	for _, l := range f.links {
		if l.index != 0 {
			e.Attached = append(e.Attached, l.name)
		}
	}
	return e
}

func (f *found) attached() bool {
	for _, l := range f.links {
		if l.index != 0 {
			return true
		}
	}
	return false
}

// take makes what is pinned into what the options ask for, or refuses.
func (f *found) take(o Options, cookie uint64) (*Instance, error) {
	f.asked = o
	if f.alien != "" {
		return f.renew(o, cookie, []string{f.alien})
	}
	wanted := o.over(f.meta)
	// Beside another daemon, or for our own: what it is for is a person's to change.
	o.Own = o.Own && f.meta.Follow == wanted.Follow
	settings := settingsDiffer(f.meta, wanted)
	layout := f.unreadable(wanted)
	switch {
	case len(settings)+len(layout) > 0 && f.attached() && !o.Own:
		return nil, errors.Join(f.mismatch(append(settings, layout...)), f.Close())
	case len(layout) > 0:
		return f.renew(o.asFound(f.meta), cookie, layout)
	}
	var older, noTables error
	if len(settings) > 0 || !f.current() || f.torn() {
		older = f.swapProgram(wanted)
	}
	if !haveTables(f.dir) {
		noTables = o.pinTables(f.dir, f.meta, &f.Handles)
	}
	if older != nil && len(settings) > 0 {
		return nil, errors.Join(older, f.Close())
	}
	i, err := f.instance(f.dir)
	if err == nil {
		i.older, i.tables = older, noTables
	}
	return i, err
}

// renew replaces program and maps, unless they are in use by somebody else.
func (f *found) renew(o Options, cookie uint64, differs []string) (*Instance, error) {
	if f.attached() && !o.Own {
		return nil, errors.Join(f.mismatch(differs), f.Close())
	}
	i, err := build(f.dir, o, cookie, f.handOver)
	return i, errors.Join(err, f.Close())
}

// handOver lets what was built take the place of what was found: first on the
// interfaces, then in the pins. What fails is taken back; wherever a process is
// killed, the interfaces have a program, and the next one finds it: see sweep
// and torn.
func (f *found) handOver(dir string) error {
	next, err := ebpf.LoadPinnedProgram(programPin(underConstruction(dir)), nil)
	if err != nil {
		return err
	}
	defer next.Close()
	steps := f.handOverSteps(dir, next)
	for n, s := range steps {
		if err := s.do(); err != nil {
			for _, done := range slices.Backward(steps[:n]) {
				err = errors.Join(err, done.undo())
			}
			return err
		}
	}
	_ = os.RemoveAll(underConstruction(dir)) // or the next process sweeps it
	return nil
}

// step is a part of a change; where do fails, it leaves things as they were.
type step struct{ do, undo func() error }

func (f *found) handOverSteps(dir string, next *ebpf.Program) []step {
	back := func() error { return f.moveLinks(f.XDP) }
	return []step{
		{do: orBack(func() error { return f.moveLinks(next) }, back), undo: back},
		{do: func() error { return exchange(dir) }, undo: func() error { return exchange(dir) }},
		{do: orBack(func() error { return moveLinkPins(underConstruction(dir), dir) },
			func() error { return moveLinkPins(dir, underConstruction(dir)) })},
	}
}

func orBack(do, back func() error) func() error {
	return func() error {
		err := do()
		if err != nil {
			err = errors.Join(err, back())
		}
		return err
	}
}

// torn reports whether a process was killed while it changed the program: the
// pinned one is not what runs, or not what meta says.
func (f *found) torn() bool {
	if _, err := os.Lstat(nextPin(f.dir)); err == nil {
		return true
	}
	info, err := f.XDP.Info()
	if err != nil {
		return false
	}
	pinned, _ := info.ID()
	return slices.ContainsFunc(f.links, func(l attached) bool { return l.index != 0 && l.prog != uint32(pinned) })
}

// current reports whether the pinned program has the code of this version.
func (f *found) current() bool {
	spec, err := bpf.Load()
	if err != nil {
		return false
	}
	info, err := f.XDP.Info()
	return err == nil && spec.Programs[bpf.ProgXDP].Compatible(info) == nil
}

// swapProgram loads this version's program with new settings over the same
// maps, moves every interface over to it, and pins it: no stamp and no
// keepalive is lost. If an interface cannot be moved, all go back.
func (f *found) swapProgram(wanted maps.Meta) error {
	next, err := f.reload(wanted)
	if err != nil {
		return err
	}
	pin := nextPin(f.dir)
	err = errors.Join(os.RemoveAll(pin), next.Pin(pin))
	if err == nil {
		err = f.switchTo(next, pin, wanted)
	}
	if err != nil {
		return errors.Join(explain(err), os.RemoveAll(pin), next.Close())
	}
	old := f.XDP
	f.XDP, f.meta = next, wanted
	return errors.Join(removeTables(f.dir), old.Close()) // the tables are made anew, too
}

// nextPin is there from before the first interface is moved to another program
// until all is done.
func nextPin(dir string) string { return filepath.Join(dir, "_next") }

func (f *found) reload(wanted maps.Meta) (*ebpf.Program, error) {
	spec, err := f.asked.spec(wanted)
	if err != nil {
		return nil, err
	}
	var next struct {
		XDP *ebpf.Program `ebpf:"ikepulse_xdp"`
	}
	err = spec.LoadAndAssign(&next, &ebpf.CollectionOptions{MapReplacements: f.Maps()})
	if err != nil {
		return nil, fmt.Errorf("loading: %w", explain(err))
	}
	return next.XDP, nil
}

// switchTo is the commit of swapProgram. What it did is taken back when a
// part of it fails; the pin, which decides what the next process finds, comes
// last.
func (f *found) switchTo(next *ebpf.Program, pin string, wanted maps.Meta) error {
	err := f.moveLinks(next)
	if err == nil {
		err = wanted.Write(f.Meta)
	}
	if err == nil {
		err = os.Rename(pin, programPin(f.dir))
	}
	if err != nil {
		return errors.Join(err, f.meta.Write(f.Meta), f.moveLinks(f.XDP))
	}
	return nil
}

func (f *found) moveLinks(to *ebpf.Program) error {
	for _, l := range f.links {
		if l.index == 0 {
			continue
		}
		if err := l.link.Update(to); err != nil {
			return fmt.Errorf("moving %s to another program: %w", l.name, err)
		}
	}
	return nil
}
