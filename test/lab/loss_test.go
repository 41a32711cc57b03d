package lab_test

import (
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestLose sends so many that a share which is off by a tenth shows.
func TestLose(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	// The neighbour is found before anything is lost: that may take a second.
	if _, received, err := s.Clients[0].Ping(t.Context(), lab.Ping{Dst: lab.GatewayAddr, Count: 1, Timeout: 10 * time.Second}); err != nil || received != 1 {
		t.Fatalf("%d of 1 came back without loss, %v", received, err)
	}
	if err := s.Clients[0].Lose(lab.ClientLink, 0.3); err != nil {
		t.Fatal(err)
	}
	p := lab.Ping{Dst: lab.GatewayAddr, Count: 2000, Interval: 200 * time.Microsecond, Timeout: 300 * time.Millisecond}
	sent, received, err := s.Clients[0].Ping(t.Context(), p)
	// Six deviations of chance are 123.
	if err != nil || sent != 2000 || received < 1400-130 || received > 1400+130 {
		t.Errorf("%d of %d came back, %v; want 1,400 or nearly so", received, sent, err)
	}
}
