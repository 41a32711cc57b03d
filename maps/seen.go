package maps

// Evidence returns when a packet of the SPI was last seen by XDP, which is a
// hint, and when one was last authenticated; CLOCK_BOOTTIME in nanoseconds, 0
// for never or for an SPI that is not tracked. Neither is ever too old: see
// [Clock]; a stamp of the present tick reads as now until the tick is over. It
// makes no system call and may be called from any goroutine.
func (s *Set) Evidence(spi uint32) (seen, auth int64) {
	seenTick, authTick, ok := s.Hot.Read(spi)
	if !ok || seenTick|authTick == 0 {
		return 0, 0
	}
	now := s.Clock.Now()
	return s.Clock.BootAt(seenTick, now), s.Clock.BootAt(authTick, now)
}

// Stamp records that a packet of the SPI was authenticated at now. Nothing
// happens when the tick has not moved, or the SPI is not tracked.
func (s *Set) Stamp(spi uint32, now int64) {
	s.Hot.Stamp(spi, s.Clock.TickAt(now))
}
