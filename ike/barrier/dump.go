package barrier

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// Dump asks the kernel for a list again that has changed while it was read: on a
// host with hundreds of addresses that come and go every fifth does, and what is
// not in it may be there all the same.
func Dump[T any](list func() ([]T, error)) (all []T, err error) {
	const tries = 50
	for range tries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
