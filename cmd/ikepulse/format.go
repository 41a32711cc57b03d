package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// span is a length of time as a person reads it: its two largest units.
func span(d time.Duration) string {
	const day = 24 * 3600
	switch s := int64(d / time.Second); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 3600:
		return fmt.Sprintf("%dm", s/60)
	case s < day:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	case s < 10*day:
		return fmt.Sprintf("%dd%02dh", s/day, s/3600%24)
	default:
		return fmt.Sprintf("%dd", s/day)
	}
}

func spanMS(ms int64) string { return span(time.Duration(ms) * time.Millisecond) }

// setting is a time as a person writes it in a configuration.
func setting(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// ago is an age, "-" if there is none.
func ago(ms *int64) string {
	if ms == nil {
		return "-"
	}
	return spanMS(*ms)
}

// thousands writes 49871 as 49,871.
func thousands[T int | int64 | uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count is a number of things: "1 IKE SA", "2 IKE SAs".
func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return thousands(n) + " " + of + "s"
}

// size is a number of bytes, rounded.
func size(bytes int64) string {
	const kB, MB = 1 << 10, 1 << 20
	if bytes < 10*MB {
		return thousands((bytes+kB/2)/kB) + " kB"
	}
	return thousands((bytes+MB/2)/MB) + " MB"
}

// maxCell keeps a line of a table a line.
const maxCell = 64

// plain makes text of a peer's making harmless for a terminal.
func plain(s string) string {
	q := escaped(s)
	if len(q) > maxCell {
		q = q[:maxCell-3] + "..."
	}
	return q
}

// escaped is plain for what has the room.
func escaped(s string) string {
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// printable takes out of a text, in which names are escaped already, what could
// still harm a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// orDash is what stands where nothing is known.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func endpoint(a netip.AddrPort) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

// table writes rows in columns, with the header only for a person.
func table(w io.Writer, terminal bool, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if terminal {
		rows = append([][]string{header}, rows...)
	}
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t")) // the error comes with Flush
	}
	return t.Flush()
}
