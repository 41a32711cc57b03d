package shard

import (
	"sync/atomic"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// counter is one thing that a shard counts.
type counter int

const (
	cDroppedIKE counter = iota // an inbox was full
	cDroppedAuth
	cDroppedFirst
	cDroppedESP
	cDroppedInner
	cDroppedDrifts
	cDroppedMessages

	cMalformed // messages that changed nothing
	cOtherVersion
	cUnknownSPI
	cFirstIgnored   // that have been declined a moment ago
	cDiscardedState // what an SA discarded, by the reason
	cDiscardedRole
	cDiscardedWindow
	cDiscardedChanged
	cDiscardedBusy
	cDiscardedLarger
	cDiscardedOffer
	cDiscardedICV
	cDiscardedSyntax

	cUnanswered // answers outside of any SA that were not given
	cWithheld   // answers larger than what an unproven address has sent

	cCookies      // demanded
	cFirstTooLong // first messages that were not read
	cHalfOpenFull // first messages without an answer: all places taken
	cSourceFull   // or all that one source may have
	cEvicted      // half-open SAs that made room for somebody who has shown a cookie
	cTableFull    // no place for another tunnel
	cBadValues    // public values that are none
	cShedLate     // handshakes whose answer would have come too late
	cShedFull     // that found too many waiting
	cShedUnproven // that made room for somebody who has shown a cookie
	cJobsRefused  // key exchanges of ours that found no room
	cAuthsDelayed // refusals that wait

	cUnknownESP // of no tunnel
	cRefusedESP // not authentic, or a replay
	cSent
	cSendErrors

	cDrifts        // hints that packets came from elsewhere
	cDriftsUnknown // of no tunnel that is up

	cProbes       // sent because of silence, or of a drift
	cProbesDrift  // because of a drift
	cProbesSpared // judgements at which evidence made a probe needless
	cRetransmits  // requests of ours that were sent again

	cEstablished
	cDeleted
	cDead
	cReplaced
	cAuthFailed
	cFailed

	cPanics     // contained
	cReclaimed  // SAs that the shard had to clean up after
	cFailedStep // steps that an edge refused
	cEdgeErrors // removals and moves that an edge refused

	cByPeerAuth // the peer refuses us
	cByPeerSuite
	cByPeerSelectors
	cByPeerAddress
	cByPeerOther
	cRefused // we refuse the peer: a counter for each rule

	numCounters = cRefused + counter(policy.Rules)
)

var counterNames = append([]string{
	"ike_dropped", "ike_auth_dropped", "ike_first_dropped", "esp_dropped", "inner_dropped", "drifts_dropped", "messages_dropped",
	"ike_malformed", "ike_other_version", "ike_unknown_spi", "first_ignored",
	"ike_discarded_state", "ike_discarded_role", "ike_discarded_window", "ike_discarded_changed", "ike_discarded_busy",
	"ike_discarded_larger", "ike_discarded_offer", "ike_discarded_icv", "ike_discarded_syntax",
	"answers_limited", "answers_withheld",
	"cookies_demanded", "first_too_long", "half_open_full", "half_open_source_full", "half_open_evicted", "table_full",
	"bad_public_values", "shed_late", "shed_full", "shed_unproven", "key_exchanges_refused", "refusals_delayed",
	"esp_unknown_spi", "esp_refused", "ike_sent", "ike_send_errors",
	"drifts", "drifts_unknown_spi",
	"probes_sent", "probes_drift", "probes_spared", "retransmissions",
	"established", "deleted", "dead", "replaced", "auth_failed", "failed",
	"panics", "reclaimed", "steps_failed", "removals_failed",
	"refused_by_peer_auth", "refused_by_peer_suite", "refused_by_peer_selectors", "refused_by_peer_address", "refused_by_peer_other",
}, refusalNames()...)

// counters are what one shard has counted since its start.
type counters [numCounters]uint64

// event counts what has become of an SA.
func (c *counters) event(ev sa.Event) {
	switch {
	case ev.Kind == sa.Established:
		c[cEstablished]++
	case ev.Kind == sa.Refusing:
		c[refusalCounter(ev)]++
	case ev.Kind == sa.Retransmit:
		c[cRetransmits]++
	case ev.Kind != sa.Closed:
	case ev.Reason == sa.DeletedByPeer || ev.Reason == sa.DeletedByUs:
		c[cDeleted]++
	case ev.Reason == sa.PeerDead:
		c[cDead]++
	case ev.Reason == sa.Replaced:
		c[cReplaced]++
	case ev.Reason == sa.AuthFailed:
		c[cAuthFailed]++
	default:
		c[cFailed]++
	}
}

// counted is the count with what other goroutines have counted.
func (s *Shard) counted() counters {
	c := s.count
	c[cDroppedIKE], c[cDroppedAuth], c[cDroppedFirst] = s.ike.drops(), s.auth.drops(), s.first.drops()
	c[cDroppedESP], c[cDroppedInner] = s.esp.drops(), s.inner.drops()
	c[cDroppedDrifts], c[cDroppedMessages] = s.drift.drops(), s.mail.drops()
	return c
}

func (c *counters) add(more counters) {
	for i, n := range more {
		c[i] += n
	}
}

// tally is what goroutines that are no shard's have counted.
type tally [numCounters]atomic.Uint64

func (t *tally) add(c counter) { t[c].Add(1) }

func (t *tally) addTo(sum *counters) {
	for i := range t {
		sum[i] += t[i].Load()
	}
}
