package loadtest

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Report is what has become of the peers. Each of them is up, refused,
// unfinished or not called.
type Report struct {
	Gateway   netip.Addr `json:"gateway"`
	Peers     int        `json:"peers"`
	PerSecond int        `json:"per_second,omitempty"` // as planned; 0: all at once
	Sources   int        `json:"source_addresses"`
	Up        int        `json:"up"`
	Refused   int        `json:"refused"`
	Refusals  []Refusal  `json:"refusals"` // the most frequent first
	// Unfinished handshakes were under way, and NotCalled peers had not begun,
	// when the test was ended.
	Unfinished int `json:"unfinished"`
	// Complaints are what unfinished ones were told without proof, so that
	// they waited for a better answer.
	Complaints []Refusal `json:"complaints,omitempty"`
	NotCalled  int       `json:"not_called"`
	// The times are from the beginning of a handshake to its Child SA; nobody
	// has one where nobody is up.
	SetupP50MS *float64 `json:"setup_p50_ms,omitempty"`
	SetupP99MS *float64 `json:"setup_p99_ms,omitempty"`
	SetupMaxMS *float64 `json:"setup_max_ms,omitempty"`
	WallMS     int64    `json:"wall_ms"` // from the first handshake's beginning to the last one's end
	// Retransmissions are requests that were sent again.
	Retransmissions uint64 `json:"retransmissions"`
	// CallingMS is the time in which the first messages of all that were
	// called have left.
	CallingMS int64 `json:"calling_ms"`
	// Late first messages left more than 10 ms after they were planned.
	LateFirst int   `json:"late_first_messages"`
	LateMaxMS int64 `json:"late_max_ms"`
	// DroppedHere are the gateway's answers that this process had no time for.
	DroppedHere uint64 `json:"answers_dropped_here"`
	HoldMS      int64  `json:"hold_ms"`
	// UpAfterHold are those that are still up then; nil without a hold.
	UpAfterHold *int `json:"up_after_hold,omitempty"`
}

// Refusal is a reason and how many handshakes failed for it.
type Refusal struct {
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

// report sums up what has become of the peers, with what the engine has counted.
func (r *run) report(count map[string]uint64) Report {
	out := Report{Gateway: r.Gateway, Peers: r.Peers, PerSecond: r.Rate, Sources: min(len(r.Sources), r.Peers),
		LateFirst: r.pace.late, LateMaxMS: r.pace.lateBy.Milliseconds()}
	r.note(func() {
		out.Up, out.NotCalled = len(r.up), r.Peers-r.begun
		out.Refused, out.Refusals = refusals(r.failed)
		out.Unfinished = r.begun - out.Up - out.Refused
		delete(r.unfinished, "")
		_, out.Complaints = refusals(r.unfinished)
		out.setup(r.up)
		out.CallingMS = max(r.wire.lastCall().Sub(r.began), 0).Milliseconds()
		out.WallMS = r.end.Sub(r.began).Milliseconds()
		out.Retransmissions = count["retransmissions"]
		out.DroppedHere = count["key_exchanges_refused"] + count["ike_dropped"] - r.retries
	})
	return out
}

// refusals sorts reasons, the most frequent first, and sums them up.
func refusals(count map[string]int) (sum int, out []Refusal) {
	out = []Refusal{}
	for why, n := range count {
		sum += n
		out = append(out, Refusal{why, n})
	}
	slices.SortFunc(out, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return sum, out
}

// setup fills in what the set-up times come to.
func (r *Report) setup(times []time.Duration) {
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	r.SetupP50MS, r.SetupP99MS, r.SetupMaxMS = percentile(times, 50), percentile(times, 99), percentile(times, 100)
}

// percentile is the least of sorted times that p % of them do not exceed, in
// milliseconds.
func percentile(sorted []time.Duration, p int) *float64 {
	rank := (len(sorted)*p + 99) / 100
	ms := math.Round(float64(sorted[max(rank, 1)-1].Microseconds())/100) / 10
	return &ms
}
