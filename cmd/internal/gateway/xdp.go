package gateway

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
)

// XDP is what is loaded, from the maps and the kernel's own words.
type XDP struct {
	Pins             string       `json:"pins,omitempty"` // the directory; none with --no-pin
	Attachments      []Attachment `json:"attachments"`
	Waiting          []string     `json:"waiting,omitempty"` // interfaces that refuse, and that the daemon tries again and again
	Keepalive        string       `json:"keepalive"`
	AnswerIntervalMS int64        `json:"answer_interval_ms"`
	Capacity         int          `json:"capacity"`
	Addresses        []netip.Addr `json:"addresses"`       // that count as ours
	LoadedMS         int64        `json:"loaded_ms"`       // since the counters began
	SPIs             int          `json:"spis"`            // that the program knows
	Blind            int          `json:"blind,omitempty"` // whose ESP arrives without the program seeing it; the daemon alone can tell
	Follow           bool         `json:"follow"`          // they are another daemon's
	Counters         []Counter    `json:"counters"`
	Events           uint64       `json:"events"`      // that it has told of
	EventsLost       uint64       `json:"events_lost"` // or had no room for, since nobody read
}

// Attachment is the program on one interface.
type Attachment struct {
	Interface   string `json:"interface"`
	Mode        string `json:"mode"` // native or generic
	ProgramID   uint32 `json:"program_id"`
	AttachedMS  *int64 `json:"attached_ms,omitempty"`
	Gone        bool   `json:"gone"`
	Note        string `json:"note,omitempty"`
	VLANOffload string `json:"vlan_offload,omitempty"` // off: switched off while the program is there
}

// Counter is how many frames left the program for one reason.
type Counter struct {
	Name    string `json:"name"`
	Frames  uint64 `json:"frames"`
	Verdict string `json:"verdict"`
}

// DescribeXDP tells what an instance has loaded and counted.
func DescribeXDP(i *loader.Instance) (*XDP, error) {
	set := i.Maps()
	now := set.Clock.Now()
	meta, err := set.Settings()
	if err != nil {
		return nil, err
	}
	x := &XDP{Pins: i.Dir(), Keepalive: meta.Keepalive, Capacity: meta.Capacity, Follow: meta.Follow,
		AnswerIntervalMS: (time.Duration(meta.AnswerInterval) * meta.Tick()).Milliseconds(),
		LoadedMS:         milliseconds(now - meta.Loaded)}
	set.Hot.Each(func(_, _, _, _ uint32) { x.SPIs++ })
	if x.Addresses, err = set.Locals.List(); err != nil {
		return nil, err
	}
	counters, err := set.Stats.Read()
	if err != nil {
		return nil, err
	}
	for _, r := range counters.Reasons() {
		x.Counters = append(x.Counters, Counter{r.Name, r.Packets, r.Verdict})
	}
	x.Events, x.EventsLost = counters.Events, counters.EventsLost
	attached, err := i.Attachments()
	for _, a := range attached {
		x.Attachments = append(x.Attachments, attachment(a))
	}
	return x, err
}

func attachment(a loader.Attachment) Attachment {
	out := Attachment{Interface: a.Interface, Mode: a.Mode, ProgramID: a.ProgramID, Gone: a.Gone, Note: a.Note}
	if a.KeepsTags {
		out.VLANOffload = "off"
	}
	if !a.Since.IsZero() {
		ms := max(time.Since(a.Since), 0).Milliseconds()
		out.AttachedMS = &ms
	}
	return out
}

func milliseconds(ns int64) int64 { return max(time.Duration(ns), 0).Milliseconds() }

// TrackedSA is what the maps alone know of an inbound SPI. Its keys are those
// of the daemon's answer, as far as they go.
type TrackedSA struct {
	InSPI      string         `json:"spi_in"`
	Local      netip.AddrPort `json:"local"`
	Remote     netip.AddrPort `json:"remote"`
	PeerNATted bool           `json:"peer_natted"`
	IdleMS     *int64         `json:"idle_ms,omitempty"`
	ProofMS    *int64         `json:"proof_ms,omitempty"`
	Proof      string         `json:"proof,omitempty"`
	Alarm      string         `json:"alarm,omitempty"`
}

// TrackedSAs reads them.
func TrackedSAs(set *maps.Set) (out []TrackedSA, err error) {
	now := set.Clock.Now()
	err = set.SAs.Each(func(s maps.SA) {
		if _, _, live := set.Hot.ReadAt(s.Slot, s.SPI); !live {
			return // being installed, or removed
		}
		seen, auth := set.EvidenceAt(s.Slot, s.SPI)
		t := TrackedSA{InSPI: fmt.Sprintf("%08x", s.SPI), Local: s.Tuple.Local, Remote: s.Tuple.Peer,
			PeerNATted: s.NATted, IdleMS: age(now, seen), ProofMS: age(now, auth)}
		if auth != 0 {
			t.Proof = "esp"
		}
		if movedLately(set.Clock, s, now) {
			t.Alarm = alarmMoved
		}
		out = append(out, t)
	})
	return out, err
}

// TrackedPeer is what the maps alone know of a peer's address.
type TrackedPeer struct {
	Local      netip.AddrPort `json:"local"`
	Remote     netip.AddrPort `json:"remote"`
	PeerNATted bool           `json:"peer_natted"`
	SPIs       uint32         `json:"spis"`
	Keepalives
}

// Keepalives are a peer's.
type Keepalives struct {
	Received   uint64 `json:"keepalives"`
	Answered   uint64 `json:"keepalives_answered"`
	ReceivedMS *int64 `json:"keepalive_ms,omitempty"` // since the last
}

// TrackedPeers reads them.
func TrackedPeers(set *maps.Set) (out []TrackedPeer, err error) {
	now := set.Clock.Now()
	err = set.Peers.Each(func(p maps.Peer) {
		out = append(out, TrackedPeer{Local: p.Tuple.Local, Remote: p.Tuple.Peer, PeerNATted: p.NATted, SPIs: p.Owners,
			Keepalives: Keepalives{p.Keepalives, p.Answers, age(now, set.Clock.BootAt(p.KeepaliveTick, now))}})
	})
	return out, err
}

// age is how long ago t was; nil for never.
func age(now, t int64) *int64 {
	if t == 0 {
		return nil
	}
	ms := milliseconds(now - t)
	return &ms
}
