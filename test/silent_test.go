package test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

var update = flag.Bool("update", false, "write what is seen now into bpf/README.md")

const silentPage = "../bpf/README.md"

// TestSilentTunnels: bpf/README.md shows what there is to see when a tunnel is
// silent, for each cause. Here every cause is made, and what the page has typed
// is typed.
func TestSilentTunnels(t *testing.T) {
	require.Have(t, "root", "netns", "tun", "bpf", "bpftool")
	t.Parallel()
	b, err := os.ReadFile(silentPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	all, err := steps(page)
	if err != nil {
		t.Fatalf("%s: %v", silentPage, err)
	}
	all = showable(t, all)
	s := newSilence(t)
	happenings := s.happenings()
	for i := range all {
		st := &all[i]
		if st.happens {
			happen := happenings[st.text]
			if happen == nil {
				t.Fatalf("%s:%d: nothing makes this happen, or it has happened: %s", silentPage, st.line+1, st.text)
			}
			delete(happenings, st.text)
			happen()
			continue
		}
		shown := st.output
		st.text = s.renamed(st.text)
		s.writeLog()
		st.output = s.shell.typed(st.text)
		s.last = strings.Join(st.output, "\n")
		if diff := cmp.Diff(plainLines(shown), plainLines(st.output)); diff != "" && !*update {
			t.Errorf("%s:%d: $ %s\n(-the page, +what is seen):\n%s\n%s", silentPage, st.line+1, st.text, diff, s.last)
		}
	}
	for text := range happenings {
		t.Errorf("%s does not tell of this: %s", silentPage, text)
	}
	s.checkTable(page)
	if *update {
		page = rewritten(page, all)
		if err := os.WriteFile(silentPage, []byte(page), 0o644); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(page, "\n"); n > 170 {
		t.Errorf("%s has %d lines, at most 170 are allowed", silentPage, n)
	}
}

var readsTable = regexp.MustCompile(`\$pins/(sas|peers|stats)\b`)

// showable are the steps that this kernel lets be seen: without BPF iterators
// there are no tables to read.
func showable(t *testing.T, all []step) []step {
	t.Helper()
	if *update {
		require.Have(t, "iter") // or lines of the page would stay as they were
	}
	if require.Has(t, "iter") {
		return all
	}
	shown := slices.DeleteFunc(slices.Clone(all), func(s step) bool { return readsTable.MatchString(s.text) })
	t.Logf("%s: %d lines that read a table are left out: this kernel refuses BPF iterators", silentPage, len(all)-len(shown))
	return shown
}

func plainLines(lines []string) (out []string) {
	for _, l := range lines {
		out = append(out, plainLine(l))
	}
	return out
}

// happenings are what the page tells of, and what must have become of it before
// anything is typed.
func (s *silence) happenings() map[string]func() {
	return map[string]func(){
		"six peers, of whom five have a tunnel left": func() {
			s.shows("anna", "is silent", silentFor)
			s.shows("bert", "has sent no ESP for long", func(sa silentSA) bool { return old(sa.IdleMS) })
			s.shows("cora", "is silent", silentFor)
			s.shows("dora", "is an alarm", func(sa silentSA) bool { return sa.Alarm == "unauthenticated" })
			s.shows("emil", "is silent", silentFor)
			await(s.T, "fred's tunnel is dead", func() bool { return s.gw.status().IKE.Counters["dead"] == 1 })
			await(s.T, "the other address has been called", func() bool { return s.gw.status().xdp("not_local") > 0 })
		},
		// It has long been so; but until XDP is found blind for vera takes a while.
		"anna's machine has lost its power": s.veraCalls,

		"emil's laptop sends something": s.emilSends,
		"fred's laptop wakes up, and goes on where it was": func() {
			s.do(func() error { return s.peers["fred"].process.Signal(syscall.SIGCONT) })
			ns, _ := s.client("fred")
			p := lab.Ping{Dst: inner, Count: 2, Interval: 10 * time.Millisecond, Timeout: 300 * time.Millisecond}
			if _, answered, err := ns.Ping(s.Context(), p); answered != 0 || err != nil {
				s.Fatalf("%d answers, %v", answered, err)
			}
			await(s.T, "his ESP has come", func() bool { return s.gw.status().xdp("esp_udp_unknown") > 0 })
		},
		"vera's packets come in by an interface without XDP": func() {
			await(s.T, "XDP is found blind", func() bool { return s.gw.status().State == "degraded" })
		},
		"tcpdump -i n0 -w trace.pcap, at the NAT": s.writeTrace,
	}
}

// writeLog keeps what the gateway has logged where the page looks for it.
func (s *silence) writeLog() {
	s.Helper()
	s.do(func() error { return os.WriteFile(silentLog, []byte(s.gw.log.String()), 0o600) })
}

var (
	spiOf   = regexp.MustCompile(`^spi=\S+( +# (\w+)'s)`)
	portOf  = regexp.MustCompile(`^port=\S+( +# (\w+)'s)`)
	placeIs = regexp.MustCompile(`^place=\S+`)
	placeOf = regexp.MustCompile(`"place": (\d+)`)
)

// renamed is a command with what a person would have read from the lines before.
func (s *silence) renamed(line string) string {
	s.Helper()
	if m := spiOf.FindStringSubmatchIndex(line); m != nil {
		return fmt.Sprintf("spi=%08x%s", s.spis[line[m[4]:m[5]]], line[m[2]:])
	}
	if m := portOf.FindStringSubmatchIndex(line); m != nil {
		for _, p := range s.gw.peers() {
			if p.Identity == line[m[4]:m[5]]+"@example.org" {
				return fmt.Sprintf("port=%d%s", p.Remote.Port(), line[m[2]:])
			}
		}
		s.Fatalf("no peer for: %s", line)
	}
	if m := placeIs.FindStringIndex(line); m != nil {
		place := placeOf.FindStringSubmatch(s.last)
		if place == nil {
			s.Fatalf("no place was shown before: %s", line)
		}
		return "place=" + place[1] + line[m[1]:]
	}
	return line
}

var tableRow = regexp.MustCompile("(?m)^\\| `(ikepulse_\\w+)` \\|.*\\| ([0-9,]+) × \\((\\d+) \\+ (\\d+)\\) \\|$")

// checkTable: the page's table has every pinned map, with its size.
func (s *silence) checkTable(page string) {
	s.Helper()
	var told, pinned []string
	for _, row := range tableRow.FindAllStringSubmatch(page, -1) {
		told = append(told, fmt.Sprintf("%s %s %s %s", row[1], strings.ReplaceAll(row[2], ",", ""), row[3], row[4]))
	}
	pins, err := filepath.Glob("/sys/fs/bpf/ikepulse/default/ikepulse_*")
	if err != nil {
		s.Fatal(err)
	}
	for _, pin := range pins {
		m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			continue // a program
		}
		pinned = append(pinned, fmt.Sprintf("%s %d %d %d", filepath.Base(pin), m.MaxEntries(), m.KeySize(), m.ValueSize()))
		m.Close()
	}
	slices.Sort(told)
	if diff := cmp.Diff(pinned, told); diff != "" || len(pinned) < 8 {
		s.Errorf("the table of maps (-pinned, +told):\n%s", diff)
	}
}
