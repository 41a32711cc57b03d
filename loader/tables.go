package loader

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/ikepulse/ikepulse/maps"
)

// tables are the programs that print a map for whoever reads the file of that
// name. They need the kernel's BTF, and nothing else needs them.
type tables struct {
	SAs   *ebpf.Program `ebpf:"ikepulse_lssas"`
	Peers *ebpf.Program `ebpf:"ikepulse_lspeer"`
	Stats *ebpf.Program `ebpf:"ikepulse_lsstat"`
}

// Names of the files, beside the pins of the maps.
const (
	tableSAs   = "sas"
	tablePeers = "peers"
	tableStats = "stats"
)

// pinTables makes the files in dir, in place of those of another version, all
// or none.
func (o Options) pinTables(dir string, m maps.Meta, h *maps.Handles) error {
	spec, err := o.spec(m)
	if err != nil {
		return err
	}
	var t tables
	if err := spec.LoadAndAssign(&t, &ebpf.CollectionOptions{MapReplacements: h.Maps()}); err != nil {
		return explain(err)
	}
	defer func() { _ = errors.Join(t.SAs.Close(), t.Peers.Close(), t.Stats.Close()) }()
	errs := []error{removeTables(dir)}
	for _, table := range []struct {
		name    string
		program *ebpf.Program
		over    *ebpf.Map
	}{
		{tableSAs, t.SAs, h.SAs},
		{tablePeers, t.Peers, h.Peers},
		{tableStats, t.Stats, h.Stats},
	} {
		errs = append(errs, pinTable(filepath.Join(dir, table.name), table.program, table.over))
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(explain(err), removeTables(dir))
	}
	return nil
}

// pinTable pins an iterator, which holds program and map as long as it is
// there.
func pinTable(pin string, program *ebpf.Program, over *ebpf.Map) error {
	iter, err := link.AttachIter(link.IterOptions{Program: program, Map: over})
	if err != nil {
		return err
	}
	return errors.Join(iter.Pin(pin), iter.Close())
}

// haveTables reports whether dir has the files.
func haveTables(dir string) bool {
	for _, name := range []string{tableSAs, tablePeers, tableStats} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

func removeTables(dir string) error {
	var errs []error
	for _, name := range []string{tableSAs, tablePeers, tableStats} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}
