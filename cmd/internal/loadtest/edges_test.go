package loadtest

import "testing"

// TestSPIs: each is given once, to the shard that it is looked for at.
func TestSPIs(t *testing.T) {
	for _, shards := range []int{1, 2, 7, 256} {
		s := newSPIs(shards)
		seen := map[uint32]bool{}
		for shard := range shards {
			alloc := s.alloc(shard)
			for range 100 {
				spi, ok := alloc(0)
				if !ok || seen[spi] || spi < 256 || s.shardOf(spi) != shard {
					t.Fatalf("%d shards: shard %d has %#x, %v", shards, shard, spi, ok)
				}
				seen[spi] = true
			}
		}
	}
}
