// Mutants asks whether the tests of a package would notice if its code were
// wrong: it changes one thing at a time, and runs the package's tests for each.
// A change that no test fails for is alive, and is printed.
//
//	go run ./test/mutants [-changed] [-write] [-parallel N] PACKAGE...
//
// What is changed, each by itself:
//   - a condition becomes false, and true: that of if, for, and a case of a switch
//     without a tag, each operand of && and ||, each comparison, and each bool that
//     is returned. An operand that would only do what the whole does (false of an
//     operand of &&, true of one of ||) is left out.
//   - a comparison is turned (== and !=, < and >=, > and <=), and one that has an
//     order is shifted by one (< and <=, > and >=)
//   - an assignment is dropped, x++ and x += y among them; what calls stand on its
//     right are made all the same. A := cannot be dropped.
//   - a statement that is a call is dropped, so are go, defer and a send
//
// Tests and generated files are left alone. The tree is never touched: each change
// is an overlay of go build. Tests that take several times the CPU that they do
// without a change have noticed it, and so have those that need gigabytes. What
// does not compile is not counted.
//
// A change that makes no difference to behaviour stands in equivalent.txt, with
// the reason; an entry that no change matches, or that the tests do fail for, is
// an error. It is an error, too, if more than 4 % of a package's changes live that
// do not stand there.
//
// tested.txt has a hash of each file at the last run with -write, of the file, of
// its package's tests and of its part of equivalent.txt. With -changed only the
// files whose hash is another one are run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// most of the changes of a package may live, in hundredths.
const most = 4

func main() {
	var c config
	flag.BoolVar(&c.changed, "changed", false, "only files that have changed since tested.txt was written")
	flag.BoolVar(&c.write, "write", false, "write tested.txt if all is well")
	flag.IntVar(&c.parallel, "parallel", runtime.GOMAXPROCS(0), "so many changes at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		stop()
		os.Exit(1)
	}
}

type config struct {
	changed, write bool
	parallel       int
}

func run(ctx context.Context, c config, patterns []string) error {
	t, err := load(patterns)
	if err != nil {
		return err
	}
	work := t.packages
	if c.changed {
		work = t.hasChanged()
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := tryAll(ctx, t, work, dir, c.parallel); err != nil {
		return err
	}
	if err := t.report(os.Stdout, work); err != nil {
		return err
	}
	if c.write {
		return t.writeTested()
	}
	return nil
}
