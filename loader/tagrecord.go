package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/loader/ethtool"
)

// What attaching switched off is on record beside the pin of the link, so that
// whoever detaches switches it on again, also after the one who attached was
// killed. A bpffs has no files, but symbolic links: the record is the text of
// one, "COOKIE INDEX:FEATURE...". An interface that is gone takes its setting
// with it, and its index is not used again; the cookie is the namespace's.
const tagsPrefix = "tags_"

func tagsPin(dir, ifname string) string {
	return filepath.Join(dir, tagsPrefix+strings.ReplaceAll(ifname, ".", dot))
}

// tagRecord has an entry for each feature of an interface.
type tagRecord struct {
	cookie  uint64
	entries []tagEntry
}

type tagEntry struct {
	index   int
	feature string
}

func (r tagRecord) String() string {
	s := fmt.Sprint(r.cookie)
	for _, e := range r.entries {
		s += fmt.Sprintf(" %d:%s", e.index, e.feature)
	}
	return s
}

func parseTagRecord(text string) (r tagRecord, err error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return r, errors.New("an empty record")
	}
	if _, err := fmt.Sscan(words[0], &r.cookie); err != nil {
		return r, err
	}
	for _, word := range words[1:] {
		var e tagEntry
		if _, err := fmt.Sscanf(word, "%d:%s", &e.index, &e.feature); err != nil {
			return r, fmt.Errorf("%q: %w", word, err)
		}
		r.entries = append(r.entries, e)
	}
	return r, nil
}

// readTags returns what is on record for an interface; fs.ErrNotExist if
// nothing is.
func readTags(dir, ifname string) (tagRecord, error) {
	text, err := os.Readlink(tagsPin(dir, ifname))
	if err != nil {
		return tagRecord{}, err
	}
	return parseTagRecord(text)
}

// keepsTags tells whether something is on record.
func keepsTags(dir, ifname string) bool {
	_, err := readTags(dir, ifname)
	return err == nil
}

// recordTags adds to the record what is to be switched off now. Interfaces that
// are gone leave it.
func recordTags(dir, ifname string, by []offload) error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	r, err := readTags(dir, ifname)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.cookie = cookie
	r.entries = slices.DeleteFunc(r.entries, func(e tagEntry) bool { return nameOf(e.index) == "" })
	for _, o := range by {
		for _, feature := range o.features {
			if e := (tagEntry{o.index, feature}); !slices.Contains(r.entries, e) {
				r.entries = append(r.entries, e)
			}
		}
	}
	pin, next := tagsPin(dir, ifname), filepath.Join(dir, "_"+tagsPrefix)
	_ = os.Remove(next)
	return errors.Join(os.Symlink(r.String(), next), os.Rename(next, pin))
}

func nameOf(index int) string {
	dev, err := netlink.LinkByIndex(index)
	if err != nil {
		return ""
	}
	return dev.Attrs().Name
}

// restoreTags switches on again what is on record, and drops the record. Of
// another namespace nothing can be reached, nor of an interface that is gone.
func restoreTags(dir, ifname string) error {
	r, err := readTags(dir, ifname)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err, os.Remove(tagsPin(dir, ifname))}
	if cookie, err := netnsCookie(); err != nil || cookie != r.cookie {
		return errors.Join(append(errs, err)...)
	}
	conn, err := ethtool.Open()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, e := range r.entries {
		name := nameOf(e.index)
		if name == "" {
			continue
		}
		if err := conn.Switch(name, []string{e.feature}, true); err != nil {
			errs = append(errs, fmt.Errorf("switching %s of %s on again: %w", e.feature, name, err))
		}
	}
	return errors.Join(errs...)
}

// recorded are the interfaces that have a record, by name.
func recorded(dir string) (names []string) {
	entries, _ := os.ReadDir(dir) // a directory that is not there has none
	for _, entry := range entries {
		if escaped, ok := strings.CutPrefix(entry.Name(), tagsPrefix); ok {
			names = append(names, strings.ReplaceAll(escaped, dot, "."))
		}
	}
	return names
}
