package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	stdmaps "maps"
	"slices"
	"strings"
	"text/tabwriter"
)

func (r report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeText prints tables for people.
func (r report) writeText(w io.Writer) error {
	var out bytes.Buffer
	r.writeMachine(&out)
	for _, s := range r.Sections {
		s.write(&out)
	}
	r.writeAims(&out)
	r.writeBreakEven(&out)
	_, err := out.WriteTo(w)
	return err
}

func (r report) writeMachine(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "kernel %s, %d CPUs %s, pinned to CPU %d, bpf_jit_enable %s, clocksource %s, %s\n",
		m.Kernel, m.CPUs, m.CPU, m.Pinned, m.JIT, m.Clocksource, m.Go)
	fmt.Fprintf(w, "command line: %s\n", m.CommandLine)
	for _, name := range slices.Sorted(stdmaps.Keys(m.Vulnerabilities)) {
		fmt.Fprintf(w, "%s: %s\n", name, m.Vulnerabilities[name])
	}
	fmt.Fprintf(w, "load %s before, %s after; %.1f%% of the CPU's time was stolen\n", m.LoadBefore, m.LoadAfter, 100*m.Steal)
	fmt.Fprintf(w, "%d rounds with the arms interleaved; ns: CPU time a frame, median; ratios: medians of those of each round;\n"+
		"net: the ratio of what is above the floor; IQR: the middle half of the rounds, of the median\n", r.Rounds)
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	for _, reason := range r.Invalid {
		fmt.Fprintf(w, "INVALID RUN, not to be quoted: %s\n", reason)
	}
}

const hotLabel = "  [HOT: the same cache lines each time, which no gateway sees]"

func (s sectionReport) write(w io.Writer) {
	title := s.Title
	if s.Hot {
		title += hotLabel
	}
	fmt.Fprintf(w, "\n%s\n", title)
	t := table{tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight), 0}
	for _, a := range s.Arms {
		t.width = max(t.width, len(a.Name))
	}
	limits := slices.ContainsFunc(s.Arms, func(a armReport) bool { return a.Limit != nil })
	rivals := slices.ContainsFunc(s.Arms, func(a armReport) bool { return a.Rival != nil })
	head := []string{"ns", "min", "IQR", "above floor", "x floor"}
	if limits {
		head = append(head, "x limit", "net")
	}
	if rivals {
		head = append(head, s.rival+" x", "net")
	}
	t.row("", head...)
	for _, a := range s.Arms {
		cells := a.cells()
		if limits {
			cells = append(cells, a.Limit.cells()...)
		}
		if rivals {
			cells = append(cells, a.Rival.cells()...)
		}
		t.row(a.Name, cells...)
	}
	t.w.Flush()
}

func (a armReport) cells() []string {
	cells := []string{fmt.Sprintf("%.1f", a.NS.Median), fmt.Sprintf("%.1f", a.NS.Min), fmt.Sprintf("%.0f%%", 100*a.NS.IQR)}
	if a.Floor == nil {
		return append(cells, "", "")
	}
	return append(cells, fmt.Sprintf("%+.1f", a.Floor.Added), fmt.Sprintf("%.2fx of %.1f", a.Floor.Ratio, a.Floor.NS))
}

// cells of no comparison are empty.
func (c *comparison) cells() []string {
	if c == nil {
		return []string{"", ""}
	}
	return []string{times(c.Ratio), times(c.Net)}
}

func times(ratio float64) string { return fmt.Sprintf("%.2fx", ratio) }

// table has its first column on the left, and the others on the right.
type table struct {
	w     *tabwriter.Writer
	width int // of the first column
}

func (t table) row(name string, cells ...string) {
	fmt.Fprintf(t.w, "%-*s\t%s\t\n", t.width, name, strings.Join(cells, "\t"))
}

func (r report) writeAims(w io.Writer) {
	fmt.Fprintf(w, "\nAims\n")
	t := table{tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight), 0}
	for _, a := range r.Aims {
		t.width = max(t.width, len(a.What))
	}
	t.row("", "", "wanted", "ratio", "net", "ns of", "ns to", "floor", "in rounds")
	for _, a := range r.Aims {
		met, net := "missed", ""
		if a.Met {
			met = "met"
		}
		if a.Net != 0 {
			net = times(a.Net)
		}
		t.row(a.What, met, a.Bound, times(a.Ratio), net, fmt.Sprintf("%.1f", a.Of), fmt.Sprintf("%.1f", a.To),
			fmt.Sprintf("%.1f", a.Floor), fmt.Sprintf("%d of %d", a.Held, r.Rounds))
	}
	t.w.Flush()
}

func (r report) writeBreakEven(w io.Writer) {
	if len(r.BreakEven) == 0 {
		return
	}
	fmt.Fprintf(w, "\nBreak-even: how many ESP packets a keepalive pays for, by what it costs less than in the kernel; and the rate of ESP\n"+
		"at which the tracker costs what it saves, when each SPI's peer sends a keepalive every %d s\n", keepaliveInterval)
	t := table{tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight), len("1000000 SPIs, Zipf, exponent 1, new ticks")}
	t.row("", "tax ns", "absorbed ns", "packets", "ESP pps", "answered ns", "packets", "ESP pps")
	for _, e := range r.BreakEven {
		t.row(fmt.Sprintf("%d SPIs, %s, %s", e.SPIs, e.Spread, e.Ticks), fmt.Sprintf("%.1f", e.Tax),
			fmt.Sprintf("%.0f", e.Absorbed), fmt.Sprintf("%.1f", e.AbsorbedPackets), rate(e.AbsorbedRate),
			fmt.Sprintf("%.0f", e.Answered), fmt.Sprintf("%.1f", e.AnsweredPackets), rate(e.AnsweredRate))
	}
	t.w.Flush()
}

// rate has as many digits as it is worth.
func rate(pps float64) string {
	switch {
	case pps <= 0:
		return "never"
	case pps >= 1e6:
		return fmt.Sprintf("%.2fM", pps/1e6)
	case pps >= 1e3:
		return fmt.Sprintf("%.1fk", pps/1e3)
	}
	return fmt.Sprintf("%.0f", pps)
}
