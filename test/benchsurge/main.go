// Benchsurge measures what a surge of handshakes costs the gateway: thousands of
// clients call it at once, from as many addresses or from one, over a bad line,
// or beside a flood of spoofed first messages. All arms are of one run, and the
// bare cryptography of a handshake is measured between them: the gateway's CPU
// is a ratio of the two, never a time by itself.
//
// The gateway is the product as it is built, `ikepulse run`, and has a CPU of its
// own. The clients are `ikepulse loadtest`; they, the flood and this program share
// another. All is in namespaces of this program's own, which vanish with it. It
// needs root and two CPUs.
//
//	go run ./test/benchsurge [-json] [-quick] [-arms few,flood]
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/measure"
)

func main() {
	c := config{hold: 5 * time.Second, alone: 2 * time.Second, bareTime: time.Second}
	asJSON := flag.Bool("json", false, "print JSON, with every counter of the gateway and each round of the cryptography")
	flag.BoolVar(&c.quick, "quick", false, "fewer clients: 1,000 and 4,000")
	flag.IntVar(&c.few, "clients", 4_000, "so many `clients` at once")
	flag.IntVar(&c.many, "many-clients", 20_000, "and so many in the arms that have many")
	flag.IntVar(&c.flood, "flood", 50_000, "spoofed first messages a second")
	flag.Func("arms", "only these, separated by commas: "+strings.Join(armNames(), ", "), c.choose)
	flag.Parse()
	code, err := run(c, *asJSON)
	if err != nil {
		fmt.Fprintf(os.Stderr, "benchsurge: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

// run builds what is tried, and then starts over in namespaces of its own.
func run(c config, asJSON bool) (code int, err error) {
	if lab.Isolated() {
		return 0, measureAll(c, asJSON)
	}
	dir, err := os.MkdirTemp("", "benchsurge")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return 1, err
	}
	cpus, err := measure.CPUs()
	if err != nil {
		return 1, err
	}
	if len(cpus) < 2 {
		return 1, fmt.Errorf("%d CPU: the gateway needs one of its own", len(cpus))
	}
	last := cpus[len(cpus)-1]
	// All that has no CPU of its own is on the first: what a thread starts is
	// where the thread is.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := measure.Pin(cpus[0]); err != nil {
		return 1, err
	}
	return lab.Reexec(os.Args[1:], []string{builtIn + "=" + dir, gatewayCPU + "=" + fmt.Sprint(last)})
}

// By these variables the second start learns what the first has done.
const (
	builtIn    = "IKEPULSE_BENCHSURGE_BUILT"
	gatewayCPU = "IKEPULSE_BENCHSURGE_CPU"
)

// measureAll is the second start.
func measureAll(c config, asJSON bool) error {
	if err := lab.Enter(); err != nil {
		return err
	}
	cpus, err := measure.CPUs()
	if err != nil {
		return err
	}
	c.clientCPU = cpus[0]
	if _, err := fmt.Sscan(os.Getenv(gatewayCPU), &c.gatewayCPU); err != nil {
		return fmt.Errorf("%s: %w", gatewayCPU, err)
	}
	c.built, c.progress = os.Getenv(builtIn), os.Stderr
	r, err := bench(c)
	if err != nil {
		return err
	}
	if asJSON {
		return r.writeJSON(os.Stdout)
	}
	return r.writeText(os.Stdout)
}
