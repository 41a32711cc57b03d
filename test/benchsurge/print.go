package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

func (r report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// caveats are what the figures do not show by themselves.
var caveats = []string{
	"CPU is that of the gateway's process; on a veth, the stack receives on the CPU of whoever sends: what it does for the gateway is not in it, what it does with the answers is",
	"idle is 1 - CPU / time, from the first message to the last handshake's end",
	"the clients, the flood and this program share a CPU; where that is busy, it is the gateway that waits",
	"clients begin as fast as their key pairs are made: calling is how long that takes",
	"over a bad line it also probes clients that have given up half-way: its CPU is not that of the handshakes alone",
	"the gateway is asked for its status every 2 s, and its tunnels carry nothing",
}

// writeText prints tables for people.
func (r report) writeText(w io.Writer) error {
	var out bytes.Buffer
	r.writeMachine(&out)
	r.writeArms(&out)
	for _, one := range r.Arms {
		one.writeCounters(&out)
	}
	r.writeAims(&out)
	_, err := out.WriteTo(w)
	return err
}

func (r report) writeMachine(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "kernel %s, %s, %s; the gateway on CPU %d, all else on CPU %d\n", m.Kernel, m.CPU, m.Go, r.CPUs.Gateway, r.CPUs.Clients)
	fmt.Fprintf(w, "load %s before, %s after; %.1f%% of the gateway's CPU was stolen\n", m.LoadBefore, m.LoadAfter, 100*r.Steal)
	fmt.Fprintf(w, "bare cryptography of a handshake (PSK, X25519, AES-128-GCM, a cookie): median %.1f us, %d rounds from %.1f to %.1f, IQR %.0f%%\n",
		r.Bare.Median, len(r.BareUS), r.Bare.Min, slices.Max(r.BareUS), 100*r.Bare.IQR)
	for _, text := range caveats {
		fmt.Fprintf(w, "note: %s\n", text)
	}
	for _, reason := range r.Invalid {
		fmt.Fprintf(w, "INVALID, not to be quoted: %s\n", reason)
	}
}

// row is a figure of each arm.
type row struct {
	name string
	of   func(result) string
}

func (r report) rows() []row {
	form := func(format string, of func(result) any) func(result) string {
		return func(one result) string { return fmt.Sprintf(format, of(one)) }
	}
	return []row{
		{"clients", form("%d", func(o result) any { return o.Clients })},
		{"up, by the clients", form("%d", func(o result) any { return o.Callers.Up })},
		{"up, by the gateway", form("%d", func(o result) any { return o.Counters["established"] })},
		{"requests sent again", form("%d", func(o result) any { return o.Callers.Retransmissions })},
		{"calling, s", form("%.2f", func(o result) any { return float64(o.Callers.CallingMS) / 1000 })},
		{"all done, s", form("%.2f", func(o result) any { return float64(o.Callers.WallMS) / 1000 })},
		{"set-up p50, ms", form("%.0f", func(o result) any { return o.Callers.SetupP50MS })},
		{"set-up p99, ms", form("%.0f", func(o result) any { return o.Callers.SetupP99MS })},
		{"gateway CPU, s", form("%.2f", func(o result) any { return o.CPUSeconds })},
		{"  us a handshake", form("%.0f", func(o result) any { return o.CPUPerHandshakeUS })},
		{"  of the bare cryptography", form("%.2fx", func(o result) any { return r.times(o) })},
		{"  in the kernel", form("%.0f%%", func(o result) any { return 100 * o.KernelPart })},
		{"gateway idle", form("%.0f%%", func(o result) any { return 100 * o.Waits.Idle })},
		{"  with the clients' CPU", form("%.0f%%", func(o result) any { return 100 * o.Waits.BothIdle })},
		{"  its CPU, of others", form("%.0f%%", func(o result) any { return 100 * o.Waits.Others })},
		{"clients busy", form("%.0f%%", func(o result) any { return 100 * o.Waits.Initiator })},
		{"  their CPU, of all", form("%.0f%%", func(o result) any { return 100 * o.Waits.OtherBusy })},
		{"lag p99, ms", form("%.1f", func(o result) any { return float64(o.LagP99US) / 1000 })},
		{"lag max, ms", form("%.1f", func(o result) any { return float64(o.LagMaxUS) / 1000 })},
		{"lost in sockets", form("%d", func(o result) any { return o.LostInSockets })},
		{"memory before, MB", form("%.1f", func(o result) any { return megabytes(o.Memory.Before) })},
		{"  at the peak", form("%.1f", func(o result) any { return megabytes(o.Memory.Peak) })},
		{"  after", form("%.1f", func(o result) any { return megabytes(o.Memory.After) })},
		{"flood, a second", inFlood("%.0f", func(f flooded) any { return f.PerSecond })},
		{"  us of CPU each, alone", inFlood("%.2f", func(f flooded) any { return f.CPUPerMessageUS })},
		{"  memory with it alone, MB", inFlood("%.1f", func(f flooded) any { return megabytes(f.MemoryAlone) })},
		{"  answered", inFlood("%.0f%%", func(f flooded) any { return 100 * float64(f.Answers) / float64(f.Sent) })},
		{"  bytes out of those in", inFlood("%.2f", func(f flooded) any { return float64(f.BytesOut) / float64(f.BytesIn) })},
	}
}

// inFlood is empty for an arm without a flood.
func inFlood(format string, of func(flooded) any) func(result) string {
	return func(one result) string {
		if one.Flood == nil {
			return ""
		}
		return fmt.Sprintf(format, of(*one.Flood))
	}
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }

func (r report) writeArms(w io.Writer) {
	fmt.Fprintln(w)
	for _, one := range r.Arms {
		fmt.Fprintf(w, "%-6s %s\n", one.Arm, one.What)
	}
	fmt.Fprintln(w)
	rows := r.rows()
	width := 0
	for _, row := range rows {
		width = max(width, len(row.name))
	}
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', tabwriter.AlignRight)
	line := func(name string, cell func(result) string) {
		fmt.Fprintf(t, "%-*s\t", width, name)
		for _, one := range r.Arms {
			fmt.Fprintf(t, "%s\t", cell(one))
		}
		fmt.Fprintln(t)
	}
	line("", func(one result) string { return one.Arm })
	for _, row := range rows {
		line(row.name, row.of)
	}
	t.Flush()
}

// writeCounters prints what the gateway has counted, and why clients were
// refused.
func (one result) writeCounters(w io.Writer) {
	fmt.Fprintf(w, "\n%s:", one.Arm)
	for _, name := range slices.Sorted(maps.Keys(one.Counters)) {
		if n := one.Counters[name]; n > 0 {
			fmt.Fprintf(w, " %s %d", name, n)
		}
	}
	for _, why := range one.Callers.Refusals {
		fmt.Fprintf(w, "\n  refused: %s %d", why.Reason, why.Count)
	}
	fmt.Fprintln(w)
}

func (r report) writeAims(w io.Writer) {
	fmt.Fprintf(w, "\nAims\n")
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, a := range r.Aims {
		met := "missed"
		if a.Met {
			met = "met"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", a.Arm, met, a.What, a.Bound, a.Found)
	}
	t.Flush()
}
