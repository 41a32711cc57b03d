package gateway

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/loader"
)

// LoaderOptions are what a configuration says of the XDP program.
func LoaderOptions(instance string, c *config.Config) loader.Options {
	return loader.Options{Instance: instance, Capacity: c.XDP.Capacity, Keepalive: c.XDP.Keepalive,
		AnswerInterval: c.XDP.AnswerInterval, StrangerPass: c.XDP.StrangerPass, PassEvery: c.XDP.PassEvery, KeepTags: c.XDP.KeepTags}
}

// Load takes over what is loaded, or loads it. fresh says that nothing was, so
// that a caller who fails later can take it away again.
func Load(o loader.Options) (i *loader.Instance, fresh bool, err error) {
	dir, err := loader.Dir(o.Instance)
	if err != nil {
		return nil, false, err
	}
	_, err = os.Stat(dir)
	fresh = o.NoPin || errors.Is(err, fs.ErrNotExist)
	i, err = loader.Ensure(o)
	return i, fresh, err
}

// Interfaces are those that a configuration names, or that carry its addresses.
// They must be there.
func Interfaces(c *config.Config) ([]string, error) {
	for _, name := range c.Listen.Interfaces {
		if err := present(name); err != nil {
			return nil, err
		}
	}
	if len(c.Listen.Interfaces) > 0 {
		return RealNames(c.Listen.Interfaces), nil
	}
	return Carriers(c.Listen.Addresses)
}

// AttachAll attaches to every interface or, where one refuses, to none that it
// was not attached to before.
func AttachAll(i *loader.Instance, ifnames []string) (done []loader.Attachment, err error) {
	before, err := i.Attachments()
	if err != nil {
		return nil, err
	}
	for _, name := range ifnames {
		a, err := i.Attach(name)
		if err != nil {
			return nil, errors.Join(err, undo(i, done, before))
		}
		done = append(done, a)
	}
	return done, nil
}

func undo(i *loader.Instance, done, before []loader.Attachment) error {
	var errs []error
	for _, a := range done {
		if !slices.ContainsFunc(before, func(b loader.Attachment) bool { return b.LinkID == a.LinkID }) {
			errs = append(errs, i.Detach(a.Interface))
		}
	}
	return errors.Join(errs...)
}
