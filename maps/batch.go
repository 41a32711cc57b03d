package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// batchSize is how many entries one system call brings: enough that the call
// costs nothing beside the entries.
const batchSize = 1024

// eachEntry calls f for every entry of a map. A hash that changes meanwhile may
// yield an entry twice or miss a new one; none that stayed is missed.
func eachEntry[K, V any](m *ebpf.Map, f func(K, V)) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, batchSize), make([]V, batchSize)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			f(keys[i], values[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("reading %s: %w", m, err)
		}
	}
}
