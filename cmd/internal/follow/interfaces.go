package follow

import (
	stdmaps "maps"
	"slices"
	"strings"

	"github.com/ikepulse/ikepulse/loader"
)

// place is what is known of one interface.
type place struct {
	link uint32 // 0: XDP is off it
	mode string
	note string // why off, or why not native
}

// keep puts XDP back on an interface that came back, or lost it by force, and
// tells where it is and is not, once each. What is pinned says which they are:
// one that somebody detached is left alone, one that he attached is kept, too.
func (f *follower) keep() error {
	_, refused, err := f.instance.Reattach()
	var attached []loader.Attachment
	if err == nil {
		attached, err = f.instance.Attachments()
	}
	if err != nil {
		return nil // the next look finds what is wrong with the pins
	}
	now := map[string]place{}
	for name := range f.places {
		now[name] = place{note: "detached"}
	}
	for _, a := range attached {
		if now[a.Interface] = (place{a.LinkID, a.Mode, a.Note}); a.Gone {
			now[a.Interface] = place{note: a.Note}
		}
	}
	for name, err := range refused {
		now[name] = place{note: strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	before := f.places
	f.places = now
	for _, name := range slices.Sorted(stdmaps.Keys(now)) {
		if was, known := before[name]; known && was == now[name] {
			continue
		}
		p := now[name]
		fact := Fact{Event: EventOn, Interface: name, Mode: p.mode, Note: p.note}
		if p.link == 0 {
			fact.Event = EventOff
		}
		if err := f.states.tell(fact); err != nil {
			return err
		}
	}
	return nil
}
