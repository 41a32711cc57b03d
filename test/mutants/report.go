package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// report prints what lives and what was counted, notes it as the last run, and
// says what is wrong.
func (t *tree) report(w io.Writer, work []*pkg) error {
	for _, p := range work {
		for _, f := range p.files {
			t.note(w, f)
		}
	}
	var wrong []error
	for _, line := range t.stale(work) {
		wrong = append(wrong, errors.New(equivalentFile+": "+line))
	}
	for _, p := range t.packages {
		i := slices.IndexFunc(work, func(o *pkg) bool { return o.dir == p.dir })
		if i < 0 {
			fmt.Fprintf(w, "%s: unchanged\n", p.dir)
			continue
		}
		fmt.Fprintf(w, "%s: %v\n", p.dir, t.count(work[i]))
		// What was not run now counts as it was found last.
		var all record
		for _, f := range p.files {
			r := t.tested[f.name]
			all.total += r.total
			all.alive += r.alive
		}
		fmt.Fprintf(w, "%s: %d of %d live, %.1f %%\n", p.dir, all.alive, all.total, all.percent())
		if all.alive*100 > all.total*most {
			wrong = append(wrong, fmt.Errorf("%s: %.1f %% of the changes live, at most %d may", p.dir, all.percent(), most))
		}
	}
	return errors.Join(wrong...)
}

func (r record) percent() float64 {
	return 100 * float64(r.alive) / float64(max(r.total, 1))
}

// note prints the living mutants of a file, and keeps their number.
func (t *tree) note(w io.Writer, f *file) {
	r := record{hash: f.hash}
	for _, m := range f.mutants {
		if m.state == broken {
			continue
		}
		r.total++
		if m.state == alive && !t.isEquivalent(m) {
			r.alive++
			fmt.Fprintln(w, m)
		}
	}
	t.tested[f.name] = r
}

// tally counts mutants by what became of them.
type tally struct{ killed, late, alive, equivalent, broken int }

func (c tally) String() string {
	return fmt.Sprintf("%d killed (%d of them by the clock), %d alive, %d equivalent; %d do not compile",
		c.killed, c.late, c.alive, c.equivalent, c.broken)
}

func (t *tree) count(p *pkg) (c tally) {
	for _, f := range p.files {
		for _, m := range f.mutants {
			switch {
			case m.state == broken:
				c.broken++
			case m.state != alive:
				c.killed++
				if m.state == late {
					c.late++
				}
			case t.isEquivalent(m):
				c.equivalent++
			default:
				c.alive++
			}
		}
	}
	return c
}
