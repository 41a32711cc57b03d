package main

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// renderRates is renderStats with a column more.
func renderRates(w io.Writer, terminal bool, rates []rated, all bool) error {
	var lines [][]string
	for _, r := range rates {
		if r.Count == 0 && !r.Reset && !all {
			continue
		}
		lines = append(lines, []string{r.Where, r.Name, digits(r.Count, terminal), perSecond(r, terminal), orDash(r.Verdict)})
	}
	return table(w, terminal, []string{"WHERE", "COUNTER", "COUNT", "PER-SECOND", "VERDICT"}, lines)
}

// renderRatesHead stands before each of several tables of rates.
func renderRatesHead(w io.Writer, rates []rated, at reading) error {
	head := at.moment().Format(time.TimeOnly)
	if len(rates) == 0 {
		_, err := fmt.Fprintf(w, "%s  %v\n", head, errNothing)
		return err
	}
	_, err := fmt.Fprintf(w, "%s  within %v\n", head, time.Duration(rates[0].IntervalMS)*time.Millisecond)
	return err
}

// digits is a count as a person reads it, or a program.
func digits(n uint64, terminal bool) string {
	if terminal {
		return thousands(n)
	}
	return strconv.FormatUint(n, 10)
}

// perSecond is a rate with as many decimals as say something.
func perSecond(r rated, terminal bool) string {
	switch {
	case r.Reset:
		return "reset"
	case r.PerSecond == nil:
		return "-"
	case !terminal:
		return strconv.FormatFloat(*r.PerSecond, 'f', 3, 64)
	case *r.PerSecond == 0:
		return "0"
	case *r.PerSecond < 100:
		return strconv.FormatFloat(*r.PerSecond, 'f', 2, 64)
	}
	return thousands(uint64(*r.PerSecond + 0.5))
}
