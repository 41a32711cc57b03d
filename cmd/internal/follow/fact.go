package follow

import (
	"net/netip"
	"time"
)

// Fact is one line of what follow tells: an event, or what there is at a
// report. Its JSON has its units in the names.
type Fact struct {
	Time     time.Time `json:"time"`
	Event    string    `json:"event"`
	*SA                // of which it is
	*Summary           // of a report
	Heard    string    `json:"heard,omitempty"` // where else the peer is heard
	Lost     bool      `json:"lost_events,omitempty"`
	Error    string    `json:"error,omitempty"`

	Interface string `json:"interface,omitempty"` // of which it is, and how XDP is on it
	Mode      string `json:"mode,omitempty"`      // native or generic
	Note      string `json:"note,omitempty"`      // why it is off, or not native
}

// The events.
const (
	EventFollowing = "following"       // begun, with as many SAs as the summary says
	EventResync    = "resync"          // a dump, since the kernel dropped events or migrated states
	EventAdded     = "sa_added"        // an inbound SA
	EventMoved     = "sa_moved"        // its daemon gave it another peer address
	EventRemoved   = "sa_removed"      //
	EventHeard     = "heard_elsewhere" // the kernel authenticates packets from another address than the SA has
	EventAlarm     = "alarm"           // packets come, and none authenticates
	EventAlarmOver = "alarm_over"      //
	EventUntracked = "untracked"       // the maps take no more
	EventOn        = "xdp_on"          // an interface has XDP
	EventOff       = "xdp_off"         // and no longer: deleted, detached, or taken off by force
	EventSA        = "sa"              // one of a report
	EventSummary   = "summary"         // a report's end
)

// SA is one inbound SA. IDLE is what XDP saw, a hint; PROOF what the kernel
// authenticated.
type SA struct {
	InSPI       string         `json:"spi_in"`
	OutSPI      string         `json:"spi_out,omitempty"` // the newest of the same reqid to the same peer
	Protocol    string         `json:"protocol"`          // esp or ah
	Local       netip.AddrPort `json:"local"`
	Remote      netip.AddrPort `json:"remote"`
	Reqid       uint32         `json:"reqid"`
	UpMS        *int64         `json:"up_ms,omitempty"`
	IdleMS      *int64         `json:"idle_ms,omitempty"`
	Proof       string         `json:"proof,omitempty"` // esp, ah, or hint: with replay window 0 the kernel's counters prove nothing
	ProofMS     *int64         `json:"proof_ms,omitempty"`
	Keepalives  uint64         `json:"keepalives"`
	KeepaliveMS *int64         `json:"keepalive_ms,omitempty"`
	Alarm       string         `json:"alarm,omitempty"`
	Why         string         `json:"why,omitempty"`
}

// The alarms.
const (
	AlarmUnauthenticated = "unauthenticated"
	AlarmMoved           = "moved"
	AlarmUntracked       = "untracked"
	AlarmUnseen          = "unseen"
)

// Summary is the sum of a report.
type Summary struct {
	SAs        int    `json:"sas"` // inbound
	Untracked  int    `json:"untracked"`
	Alarms     int    `json:"alarms"`
	Absorbed   uint64 `json:"keepalives_absorbed"` // this and the rest: since the maps were made
	Passed     uint64 `json:"keepalives_passed"`
	Strangers  uint64 `json:"keepalives_from_strangers"`
	ESPKnown   uint64 `json:"esp_known"`
	ESPUnknown uint64 `json:"esp_unknown"`
	AHKnown    uint64 `json:"ah_known"`
	AHUnknown  uint64 `json:"ah_unknown"`
	Resyncs    int    `json:"resyncs"` // this: since the start
}
