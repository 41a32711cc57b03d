package gateway

import (
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/ike"
)

// TestDownProblems: status says which tunnel is missing, since when, why, and
// what is done about it; however many there are.
func TestDownProblems(t *testing.T) {
	in := int64(12_900)
	st := &ike.Status{}
	st.DownTotal = 4712
	st.Down = []ike.Down{{Connection: "berlin", DownMS: 185_000, Why: "the peer deleted it", CallInMS: &in},
		{Connection: "rome", DownMS: 4_000_000, Why: "the peer is dead"}}
	want := []string{"berlin is down for 3m: the peer deleted it; called again in 12s",
		"rome is down for 1h06m: the peer is dead; it is being called", "4710 more connections that are to be up are down"}
	if got := downProblems(st); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := downProblems(&ike.Status{}); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
