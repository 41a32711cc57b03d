package test

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// demo is a run of the demo as a newcomer has it: nothing in the PATH.
type demo struct {
	*testing.T
	cmd    *exec.Cmd
	output *lab.Transcript
}

func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	path, err := product()
	if err != nil {
		t.Fatal(err)
	}
	d := &demo{t, exec.Command(path, append([]string{"demo"}, args...)...), &lab.Transcript{}}
	d.cmd.Env = []string{"PATH=/nowhere"}
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.output.String())
		}
	})
	return d
}

// end waits for the demo and returns its exit code, -1 if a signal ended it.
func (d *demo) end() int {
	d.Helper()
	err := d.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.Fatal(err)
	}
	return d.cmd.ProcessState.ExitCode()
}

// saw waits for a piece of output.
func (d *demo) saw(what string) {
	d.Helper()
	for end := time.Now().Add(limit); !strings.Contains(d.output.String(), what); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			d.Fatalf("no %q", what)
		}
	}
}

// nothingLeft compares the machine with what it was.
func nothingLeft(t *testing.T, before *lab.Inventory) {
	t.Helper()
	left, err := before.Leftovers(time.Minute)
	if err != nil || len(left) > 0 {
		t.Errorf("not as before: %q, %v", left, err)
	}
}

func snapshot(t *testing.T) *lab.Inventory {
	t.Helper()
	require.Have(t, "root", "netns", "bpf", "tun")
	path, err := product()
	if err != nil {
		t.Fatal(err)
	}
	before, err := lab.Snapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	return before
}

func TestDemo(t *testing.T) {
	before := snapshot(t)
	d := startDemo(t)
	if code := d.end(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	nothingLeft(t, before)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	told := demoLines(string(readme))
	if len(told) < 10 {
		t.Fatalf("the README shows %d lines of the demo", len(told))
	}
	got := demoLines(d.output.String())
	for _, line := range told {
		for len(got) > 0 && got[0] != line {
			got = got[1:]
		}
		if len(got) == 0 {
			t.Fatalf("the README shows what the demo does not print, or not in this order: %s", line)
		}
	}
}

var (
	demoLine = regexp.MustCompile(`(?m)^ *\d+\.\ds  .*$`)
	spiWord  = regexp.MustCompile(`\b[0-9a-f]{8}\b`)
	timeWord = regexp.MustCompile(`\b\d+(\.\d+)?(µs|ms|s)\b`)
	number   = regexp.MustCompile(`\d+`)
)

// demoLines are the demo's lines in a text, without what differs from run to
// run.
func demoLines(text string) []string {
	lines := demoLine.FindAllString(text, -1)
	for i, l := range lines {
		l = spiWord.ReplaceAllString(strings.TrimSpace(l), "SPI")
		l = timeWord.ReplaceAllString(l, "TIME")
		lines[i] = number.ReplaceAllString(l, "N")
	}
	return lines
}

// TestDemoNoticesSabotage breaks what the demo claims.
func TestDemoNoticesSabotage(t *testing.T) {
	before := snapshot(t)
	t.Run("group", func(t *testing.T) {
		for _, c := range []struct{ sabotage, claim string }{
			{"xdp", "XDP answers the NAT keepalives"},
			{"nat", "the clients connect through the NAT"},
			{"kill", "a dead peer is found out and cleared away"},
		} {
			t.Run(c.sabotage, func(t *testing.T) {
				t.Parallel()
				d := startDemo(t, "--sabotage", c.sabotage)
				if code := d.end(); code != 1 {
					t.Errorf("exit code %d, want 1", code)
				}
				if want := "ikepulse: not shown within"; !strings.Contains(d.output.String(), want) ||
					!strings.Contains(d.output.String(), c.claim) {
					t.Errorf("it does not say that this failed: %s", c.claim)
				}
			})
		}
	})
	nothingLeft(t, before)
}

// reap does an init's duty. The tests are the first process of their namespace,
// and inherit the demo's child when the demo is killed.
func reap() {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil {
			return // no children any more
		}
	}
}

// TestDemoInterrupted ends it in the middle: politely, and without asking.
func TestDemoInterrupted(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, 1}, {syscall.SIGTERM, 1}, {syscall.SIGKILL, -1}} {
		t.Run(c.signal.String(), func(t *testing.T) {
			before := snapshot(t)
			d := startDemo(t)
			d.saw("IKE_AUTH: anna")
			if err := d.cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			if code := d.end(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			reap()
			nothingLeft(t, before)
		})
	}
}
