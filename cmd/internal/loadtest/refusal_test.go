package loadtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ikepulse/ikepulse/ike"
)

func TestReason(t *testing.T) {
	for text, want := range map[string]string{
		"authentication failed: the peer says AUTHENTICATION_FAILED":                          "AUTHENTICATION_FAILED",
		"refused: the peer says NO_PROPOSAL_CHOSEN":                                           "NO_PROPOSAL_CHOSEN",
		"refused: the peer says notify 44":                                                    "notify 44",
		"no child SA: the peer says TS_UNACCEPTABLE":                                          "no child SA: TS_UNACCEPTABLE",
		"authentication failed: no connection and secret for this identity, or AUTH is wrong": notProven,
		"handshake timeout": noAnswer,
		"deleted by peer":   "deleted by peer",
	} {
		if got := reason(errors.New(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestBusy: what this process has no time for is nobody's refusal.
func TestBusy(t *testing.T) {
	if !busy(ike.ErrBusy) || !busy(fmt.Errorf("local failure: %w", ike.ErrBusy)) || busy(ike.ErrStopped) || busy(nil) {
		t.Error("taken for another error")
	}
}
