package gateway

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/maps"
)

// slotsRest is how long a slot is no one's after its SPI went.
const slotsRest = 2 * time.Minute

// alarmUntracked says that XDP does not know an SPI, since no slot was free.
const alarmUntracked = "untracked"

// supply is where inbound SPIs come from: an allocator a shard.
type supply struct {
	shards []*maps.SPIs
	// When an SPI was last given out beyond the maps, and when one was last
	// refused; 0: never. CLOCK_BOOTTIME in nanoseconds.
	beyond, refused atomic.Int64
	onBeyond        func() // the first in slotsRest
}

func newSupply(capacity, shards int, onBeyond func()) *supply {
	s := &supply{onBeyond: onBeyond}
	for i := range shards {
		s.shards = append(s.shards, maps.NewSPIs(capacity, i, shards, rand.Reader))
	}
	return s
}

// alloc and free are those of a shard, which alone may call them.
func (s *supply) alloc(shard int) func(now int64) (uint32, bool) {
	return func(now int64) (uint32, bool) {
		spi, tracked, ok := s.shards[shard].Alloc(now)
		if !ok {
			s.refused.Store(now)
			return 0, false
		}
		if !tracked && recent(s.beyond.Swap(now), now) == 0 {
			s.onBeyond()
		}
		return spi, true
	}
}

func (s *supply) free(shard int) func(spi uint32, now int64) { return s.shards[shard].Free }

// shardOf tells whose an SPI is. Any goroutine may call it.
func (s *supply) shardOf(spi uint32) int { return int(maps.SlotOf(spi)) % len(s.shards) }

// recent is how long ago something was, and 0 when its reason may be over.
func recent(at, now int64) time.Duration {
	if at == 0 || now-at > int64(slotsRest) {
		return 0
	}
	return max(time.Duration(now-at), 1)
}

// warnBeyond is said once for each shortage of slots.
func (d *daemon) warnBeyond() {
	if d.xdp != nil {
		d.Log.Warn("no SPI slot is free: new tunnels come up, and are unknown to XDP", "capacity", d.Config.XDP.Capacity)
	}
}

// slotProblem says what the want of slots does, and what to do about it.
func (d *daemon) slotProblem(st *Status, now int64) string {
	const more = "a larger xdp.capacity has more"
	refused := recent(d.supply.refused.Load(), now)
	switch {
	case st.IKE.Taken >= st.IKE.MaxSAs:
		return fmt.Sprintf("all %d tunnels that there can be with xdp.capacity %d are in use: nobody else can connect", st.IKE.Taken, st.Capacity)
	case refused != 0:
		return fmt.Sprintf("a tunnel was refused %v ago: every inbound SPI is in use, or rests for %v after its tunnel went; %s",
			refused.Round(time.Second), slotsRest, more)
	case st.Untracked > 0:
		return fmt.Sprintf("%s unknown to XDP, since no SPI slot of xdp.capacity %d was free: up as any other, but no keepalive of theirs is answered; %s, and who connects again gets one that is free",
			tunnelsAre(st.Untracked), st.Capacity, more)
	case st.IKE.Up > st.Capacity:
		return fmt.Sprintf("%s there, and xdp.capacity is %d: XDP knows them all, but the slots that are for rekeys and new tunnels are in use; %s",
			tunnelsAre(st.IKE.Up), st.Capacity, more)
	}
	return ""
}

func tunnelsAre(n int) string {
	if n == 1 {
		return "1 tunnel is"
	}
	return fmt.Sprintf("%d tunnels are", n)
}

// untracked tells whether XDP does not know a tunnel.
func (d *daemon) untracked(sa *ike.SA) bool {
	if d.xdp == nil {
		return false // it knows none
	}
	spi, err := strconv.ParseUint(sa.InSPI, 16, 32)
	return err == nil && !d.xdp.Maps().Tracked(uint32(spi))
}
