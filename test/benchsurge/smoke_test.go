package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/measure"
	"github.com/ikepulse/ikepulse/test/require"
)

// small is a run that is over soon and whose figures mean nothing.
func small(t *testing.T) config {
	t.Helper()
	require.Have(t, "root", "netns", "bpf", "tun")
	if !isolated {
		t.Fatal("this test is not in namespaces of its own")
	}
	cpus, err := measure.CPUs()
	if err != nil {
		t.Fatal(err)
	}
	c := config{few: 50, many: 80, flood: 2_000, hold: time.Second, alone: time.Second, timeout: 8 * time.Second,
		bareTime: 10 * time.Millisecond, clientCPU: cpus[0], gatewayCPU: cpus[len(cpus)-1], built: t.TempDir(), progress: t.Output()}
	if err := build(c.built); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSmoke runs every arm and looks at what the gateway, the clients and the
// flood's link say of each other.
func TestSmoke(t *testing.T) {
	c := small(t)
	before, err := lab.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r, err := bench(c)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := before.Leftovers(patience); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if want := armNames(); len(r.Arms) != len(want) || len(r.BareUS) != len(want)+1 {
		t.Fatalf("%d arms, %d rounds of bare cryptography, want %v between rounds", len(r.Arms), len(r.BareUS), want)
	}
	for i, a := range c.arms() {
		t.Run(a.name, func(t *testing.T) { behaved(t, a, r.Arms[i]) })
	}
	t.Run("output", func(t *testing.T) { prints(t, r) })
}

// behaved wants all to be up, and nobody refused for a reason that is none.
func behaved(t *testing.T, a arm, r result) {
	established, failed := r.Counters["established"], r.Counters["auth_failed"]
	if r.Callers.Peers != a.clients || failed != 0 {
		t.Errorf("%d clients, %d refused: %+v", r.Callers.Peers, failed, r.Callers)
	}
	switch {
	case a.loss == 0 && (r.Callers.Up != a.clients || established != uint64(a.clients)):
		t.Errorf("up are %d by the clients, %d by the gateway: %+v", r.Callers.Up, established, r.Callers.Refusals)
	case a.loss > 0 && (r.Callers.Up == 0 || r.Callers.Retransmissions == 0 || int(established) < r.Callers.Up):
		t.Errorf("over a bad line: up are %d by the clients, %d by the gateway, %d sent again", r.Callers.Up, established, r.Callers.Retransmissions)
	}
	if r.CPUSeconds <= 0 || r.Memory.Peak < r.Memory.Before || r.Memory.Before == 0 || r.LagMaxUS == 0 {
		t.Errorf("not measured: %+v", r)
	}
	if f := r.Flood; a.flood > 0 && (f == nil || f.Sent < uint64(a.flood) || f.Answers == 0 || f.BytesOut > f.BytesIn || r.Counters["ike_malformed"] != 0) {
		t.Errorf("the flood: %+v, %v", f, r.Counters)
	}
}

// prints wants both forms of the output.
func prints(t *testing.T, r report) {
	var text, encoded bytes.Buffer
	if err := r.writeText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.writeJSON(&encoded); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(encoded.Bytes(), &back); err != nil || len(back.Arms) != len(r.Arms) || len(back.Aims) == 0 {
		t.Errorf("%d arms and %d aims come back, %v", len(back.Arms), len(back.Aims), err)
	}
	for _, want := range []string{"few    50 clients", "up, by the gateway", "\nAims\nfew  "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
}
