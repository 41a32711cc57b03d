package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/records"
	"github.com/ikepulse/ikepulse/maps"
)

// openStore opens the file of the SAs' records. They hold keys, which must not
// reach a disk: where /run is no tmpfs there is no file.
func (d *daemon) openStore(context.Context) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(d.Names.Records), &fs); err != nil {
		return err
	}
	if fs.Type != unix.TMPFS_MAGIC {
		d.Log.Warn("no records are kept: the folder is not on a tmpfs, and they hold keys", "folder", filepath.Dir(d.Names.Records))
		return nil
	}
	store, left, err := records.Open(d.Names.Records, maps.MaxSPIs(d.Config.XDP.Capacity))
	if err != nil {
		return err
	}
	if left > 0 {
		d.Log.Warn("IKE SAs of an earlier run are gone: none survives a restart yet", "sas", left)
	}
	if err := lockableRecords(d.Config); err != nil {
		d.Log.Warn("records may be written to a swap device: they hold keys", "error", err)
	}
	d.store, d.records = store, store
	// What is left in it are SAs whose end was not announced: nothing that
	// the next run could use.
	d.own(func() error { return errors.Join(os.Remove(d.Names.Records), store.Close()) })
	return nil
}

// storeProblem says why new tunnels are refused for want of room; "" if they are
// not.
func (d *daemon) storeProblem() string {
	if d.records == nil {
		return ""
	}
	if err := d.records.Short(); err != nil {
		return fmt.Sprintf("new tunnels are refused: %s", oneLine(err))
	}
	return ""
}

// lockableRecords says why the records of all tunnels cannot be kept out of
// swap, or is nil.
func lockableRecords(c *config.Config) error {
	return records.Lockable(MemoryFor(c.XDP.Capacity).Records)
}
