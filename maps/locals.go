package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// Locals is the view of ikepulse_locals: the addresses that count as ours.
// Every method may be called from any goroutine.
type Locals struct {
	m *ebpf.Map
}

// Set makes exactly these addresses ours. New ones are added before others go,
// so that one which stays is never missing; after an error the map holds some
// of both.
func (l *Locals) Set(addresses []netip.Addr) error {
	for _, address := range addresses {
		if err := l.Add(address); err != nil {
			return err
		}
	}
	have, err := l.List()
	if err != nil {
		return err
	}
	for _, address := range have {
		if !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return a.Unmap().WithZone("") == address }) {
			if err := l.Remove(address); err != nil {
				return err
			}
		}
	}
	return nil
}

// Add makes an address ours; one that is already stays.
func (l *Locals) Add(address netip.Addr) error {
	if !address.IsValid() {
		return fmt.Errorf("%s: not an address", bpf.MapLocals)
	}
	if err := l.m.Put(bpf.LocalKey{Address: address.As16()}, uint32(0)); err != nil {
		return fmt.Errorf("%s, %s: %w", bpf.MapLocals, address, orFull(err))
	}
	return nil
}

// Remove makes an address no longer ours; one that was not is no error.
func (l *Locals) Remove(address netip.Addr) error {
	err := l.m.Delete(bpf.LocalKey{Address: address.As16()})
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("%s, %s: %w", bpf.MapLocals, address, err)
	}
	return nil
}

// List returns our addresses, sorted.
func (l *Locals) List() (addresses []netip.Addr, err error) {
	err = eachEntry(l.m, func(key bpf.LocalKey, _ uint32) {
		addresses = append(addresses, netip.AddrFrom16(key.Address).Unmap())
	})
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses), err
}
