package main

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

// line is a timeline of seconds, by what has been used of each CPU in each.
func line(gateway, clients, others []float64) *timeline {
	start := time.Unix(1000, 0)
	t := &timeline{samples: []sample{{at: start}}}
	for i := range gateway {
		was := t.samples[i]
		seconds := func(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }
		t.samples = append(t.samples, sample{at: was.at.Add(time.Second), sent: 1,
			gateway: was.gateway + seconds(gateway[i]), own: was.own + seconds(1-gateway[i]-others[i]),
			clients: was.clients + seconds(clients[i]), idle: was.idle + seconds(1-clients[i])})
	}
	return t
}

// Who waits for whom: in the first second the gateway for the clients, in the
// second one they for it, in the third both for nothing.
func TestWaits(t *testing.T) {
	l := line([]float64{0.5, 1, 0.25}, []float64{1, 0.5, 0}, []float64{0, 0, 0.25})
	from, latest, ok := l.began()
	if !ok || from != l.samples[0].at || latest != l.samples[1].at {
		t.Fatalf("began between %v and %v, %t", from, latest, ok)
	}
	got := l.waits(from, from.Add(3*time.Second))
	for _, f := range []struct {
		name      string
		got, want float64
	}{
		{"idle", got.Idle, 1.25 / 3}, {"others", got.Others, 0.25 / 3},
		{"initiators", got.Initiator, 1.5 / 3}, {"their CPU", got.OtherBusy, 1.5 / 3}, {"both", got.BothIdle, 0.75 / 3},
	} {
		if math.Abs(f.got-f.want) > 1e-6 {
			t.Errorf("%s: %v, want %v", f.name, f.got, f.want)
		}
	}
	if half := l.at(from.Add(1500 * time.Millisecond)); half.gateway != time.Second || half.clients != 1250*time.Millisecond {
		t.Errorf("in the middle of the second: %+v", half)
	}
	if end := l.at(from.Add(time.Hour)); end != l.samples[3] {
		t.Errorf("behind the end: %+v", end)
	}
}

func TestReadBare(t *testing.T) {
	const text = "goos: linux\nBenchmarkResponder-2   \t   10238\t    122629 ns/op\t    111640 cpu-ns/op\t   14168 B/op\nPASS\n"
	if got, err := readBare(text); got != 111640 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := readBare("PASS\n"); err == nil {
		t.Error("a benchmark that is not there has a figure")
	}
}

// On a bad line the clients' own schedule has some give up.
func TestLeastUp(t *testing.T) {
	for _, tt := range []struct {
		arm  arm
		want float64
	}{
		{arm{clients: 4000}, 0.99},
		{arm{clients: 4000, loss: 0.3}, 0.9377}, // (1 - 0.51^6)^3 = 0.9481, less 3 x 0.0035
		{arm{clients: 4000, loss: 0.01}, 1},
	} {
		if got, _ := tt.arm.leastUp(); math.Abs(got-tt.want) > 0.001 {
			t.Errorf("%v: %.4f, want %.4f", tt.arm, got, tt.want)
		}
	}
}

// A run that was disturbed says so before its figures.
func TestInvalid(t *testing.T) {
	for _, tt := range []struct {
		name string
		bare []float64
		one  result
		want string
	}{
		{"quiet", []float64{100, 101, 102}, result{}, ""},
		{"cryptography that varies", []float64{100, 100, 150, 190}, result{}, "spreads over"},
		{"a CPU that is not its own", []float64{100, 100}, result{Arm: "few", Waits: waits{Others: 0.2}}, "few: others had 20%"},
		{"a CPU that is nearly its own", []float64{100, 100}, result{Arm: "few", Waits: waits{Others: 0.02}}, ""},
	} {
		r := report{BareUS: tt.bare, Arms: []result{tt.one}}
		r.judge(config{})
		var out bytes.Buffer
		if err := r.writeText(&out); err != nil {
			t.Fatal(err)
		}
		said := strings.Contains(out.String(), "INVALID")
		if r.Valid != (tt.want == "") || said == r.Valid || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: valid %t\n%s", tt.name, r.Valid, &out)
		}
	}
}

// TestChoose: arms by their names.
func TestChoose(t *testing.T) {
	c := config{few: 4, many: 20, flood: 5}
	if err := c.choose("flood,one"); err != nil {
		t.Fatal(err)
	}
	got := c.arms()
	if len(got) != 2 || got[0].String() != "20 clients of one address and port" ||
		got[1].String() != "4 clients, an address each, beside 5 spoofed first messages a second" {
		t.Errorf("%v", got)
	}
	if err := c.choose("few,none"); err == nil {
		t.Error("an arm that is none was chosen")
	}
}
