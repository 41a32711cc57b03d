package gateway

import (
	"fmt"
	"time"

	"github.com/ikepulse/ikepulse/maps"
)

// alarmMoved says that packets with an SA's SPI have lately come from elsewhere
// than it was at: its NAT has given it another mapping, or somebody forges.
const alarmMoved = "moved"

// movedFor is how long that is told.
const movedFor = time.Minute

// movedLately goes by what XDP has noted in the maps: there it stands also when
// nobody reads its events.
func movedLately(clock *maps.Clock, s maps.SA, now int64) bool {
	at := clock.BootAt(s.MovedTick, now)
	return at != 0 && now-at <= int64(movedFor)
}

// moved are the SPIs that have moved lately, as they are shown.
func (d *daemon) moved() (map[string]bool, error) {
	if d.xdp == nil {
		return nil, nil
	}
	set := d.xdp.Maps()
	now := set.Clock.Now()
	spis := map[string]bool{}
	err := set.SAs.Each(func(s maps.SA) {
		if movedLately(set.Clock, s, now) {
			spis[fmt.Sprintf("%08x", s.SPI)] = true
		}
	})
	return spis, err
}
