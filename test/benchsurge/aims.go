package main

import (
	"fmt"
	"math"
)

// The aims of the project for a surge.
const (
	aimCPU     = 1.6  // times the bare cryptography
	aimIdle    = 0.10 // of the gateway's CPU while clients wait
	aimUp      = 0.99 // of the legitimate beside a flood
	aimLagUS   = 20_000
	aimMemory  = 1.25 // of the memory of as many clients without a flood
	floodShort = 0.95 // a flood of less than this is another one
)

// aim is a bound, and what was found.
type aim struct {
	Arm   string `json:"arm"`
	What  string `json:"what"`
	Bound string `json:"bound"`
	Found string `json:"found"`
	Met   bool   `json:"met"`
}

// aims are those of one arm.
func (r *report) aims(a arm, one result) (out []aim) {
	add := func(met bool, what, bound, found string, args ...any) {
		found = fmt.Sprintf(found, args...)
		if one.disturbed() {
			found += " (disturbed)"
		}
		out = append(out, aim{a.name, what, bound, found, met})
	}
	if a.plain() || a.one {
		add(r.times(one) <= aimCPU, "CPU a handshake, of the bare cryptography", fmt.Sprintf("at most %gx", aimCPU), "%.2fx", r.times(one))
	}
	if a.plain() {
		add(one.Waits.Idle <= aimIdle, "gateway idle while clients wait", percent("at most", aimIdle), "%.0f%%; the clients' CPU was busy for %.0f%%",
			100*one.Waits.Idle, 100*one.Waits.OtherBusy)
		add(one.Waits.BothIdle <= aimIdle, "and the clients' CPU idle as well", percent("at most", aimIdle), "%.0f%%", 100*one.Waits.BothIdle)
	}
	part := float64(one.Callers.Up) / float64(one.Clients)
	least, bound := a.leastUp()
	add(part >= least, "clients up", bound, "%.2f%%", 100*part)
	add(one.Counters["auth_failed"] == 0, "refused though the secret is right", "none", "%d", one.Counters["auth_failed"])
	add(one.LagP99US <= aimLagUS, "lag p99 of a loop", fmt.Sprintf("at most %d ms", aimLagUS/1000), "%.1f ms", float64(one.LagP99US)/1000)
	if f := one.Flood; f != nil {
		add(f.PerSecond >= floodShort*float64(a.flood), "spoofed messages a second", fmt.Sprint(a.flood), "%.0f", f.PerSecond)
		add(f.BytesOut <= f.BytesIn, "bytes out to the spoofed, of those in", "at most 1", "%.2f", float64(f.BytesOut)/float64(f.BytesIn))
		r.aimFlat(one, add)
	}
	return out
}

// leastUp is the part of the clients that must be up. On a bad line some give up
// by their own schedule, whatever the gateway does: a round trip fails if either
// way does, and two exchanges with six tries each must not fail; one more where
// a cookie is asked for. Chance is given three deviations.
func (a arm) leastUp() (least float64, bound string) {
	if a.loss == 0 {
		return aimUp, percent("at least", aimUp)
	}
	const tries, exchanges = 6, 3
	fails := 1 - (1-a.loss)*(1-a.loss)
	up := math.Pow(1-math.Pow(fails, tries), exchanges)
	least = up - 3*math.Sqrt(up*(1-up)/float64(a.clients))
	return least, fmt.Sprintf("%.1f%% by the clients' own schedule, less chance: %.1f%%", 100*up, 100*least)
}

// aimFlat compares the memory with that of as many clients without a flood.
func (r *report) aimFlat(one result, add func(met bool, what, bound, found string, args ...any)) {
	for _, other := range r.Arms {
		if other.Arm == "few" && other.Clients == one.Clients {
			times := float64(one.Memory.Peak) / float64(other.Memory.Peak)
			add(times <= aimMemory, "memory at the peak, of that without a flood", fmt.Sprintf("at most %gx", aimMemory), "%.2fx", times)
		}
	}
}

func percent(how string, part float64) string { return fmt.Sprintf("%s %.0f%%", how, 100*part) }
