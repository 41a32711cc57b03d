package bpf

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/test/require"
)

// verifierLimit is how many instructions the kernel's verifier follows before
// it gives up; kernels differ in how many it takes for the same program.
const verifierLimit = 1_000_000

var processed = regexp.MustCompile(`processed (\d+) insns .*`)

// The verifier of this kernel, and so that of the next, is far from its limit
// with every program. What it says is shown, to be compared between kernels.
func TestVerifierComplexity(t *testing.T) {
	require.Have(t, "root", "bpf")
	for i, c := range []struct {
		name   string
		change func(*settings)
	}{
		{"answering", func(*settings) {}},
		{"absorbing", func(s *settings) { s.KeepaliveMode = KeepaliveAbsorb }},
		{"accounting", func(s *settings) { s.AccountEveryPacket, s.StrangerPass, s.PassEvery = 1, 1, 10 }},
		{"following", func(s *settings) { s.KeepaliveMode, s.Foreign = KeepaliveAbsorb, 1 }},
	} {
		all := allowed(t, spec(t))
		s := defaults()
		s.clock = nil
		c.change(&s)
		s.apply(t, all)
		loaded, err := ebpf.NewCollectionWithOptions(all, ebpf.CollectionOptions{
			Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer loaded.Close()
		for _, name := range slices.Sorted(maps.Keys(loaded.Programs)) {
			said := processed.FindStringSubmatch(loaded.Programs[name].VerifierLog)
			if said == nil {
				t.Fatalf("%s: the verifier said %q", name, loaded.Programs[name].VerifierLog)
			}
			if n, err := strconv.Atoi(said[1]); err != nil || n > verifierLimit/10 {
				t.Errorf("%s, %s: %s instructions, which is near the limit of %d (%v)", name, c.name, said[1], verifierLimit, err)
			}
			if name == ProgXDP || i == 0 { // the settings concern no other
				t.Logf("verifier: %s, %s: %s", name, c.name, said[0])
			}
		}
	}
}

// allowed is what this kernel lets be loaded: some refuse the programs that print
// a map, and another must tell of those.
func allowed(t *testing.T, all *ebpf.CollectionSpec) *ebpf.CollectionSpec {
	t.Helper()
	if !require.Has(t, "iter") {
		for _, name := range []string{ProgListSAs, ProgListPeers, ProgListStats} {
			delete(all.Programs, name)
		}
	}
	return all
}
