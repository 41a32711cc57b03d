package maps

// Ledger is the hot entries with the clock that reads them: who was seen,
// and who has proved that he lives.
type Ledger struct {
	Hot    *Hot
	Clock  *Clock
	beyond *beyond // nil where no SPI is handed out
}

// Evidence returns when a packet of the SPI was last seen by XDP, which is a
// hint, and when one was last authenticated; CLOCK_BOOTTIME in nanoseconds, 0
// for never or for an SPI that is not tracked. Neither is ever too old: see
// [Clock]; a stamp of the present tick reads as now until the tick is over. It
// makes no system call and may be called from any goroutine.
func (l *Ledger) Evidence(spi uint32) (seen, auth int64) {
	if slot, ok := l.beyond.slot(spi); ok {
		return l.evidence(&l.beyond.hot, slot, spi)
	}
	return l.EvidenceAt(SlotOf(spi), spi)
}

// EvidenceAt is Evidence of an SPI that need not carry its slot.
func (l *Ledger) EvidenceAt(slot, spi uint32) (seen, auth int64) {
	return l.evidence(l.Hot, slot, spi)
}

func (l *Ledger) evidence(h *Hot, slot, spi uint32) (seen, auth int64) {
	seenTick, authTick, ok := h.ReadAt(slot, spi)
	if !ok || seenTick|authTick == 0 {
		return 0, 0
	}
	now := l.Clock.Now()
	return l.Clock.BootAt(seenTick, now), l.Clock.BootAt(authTick, now)
}

// Stamp records that a packet of the SPI was authenticated at now. Nothing
// happens when the tick has not moved, or the SPI is not tracked.
func (l *Ledger) Stamp(spi uint32, now int64) {
	tick := l.Clock.TickAt(now)
	if slot, ok := l.beyond.slot(spi); ok {
		l.beyond.hot.stampAt(slot, spi, tick)
		return
	}
	l.Hot.Stamp(spi, tick)
}
