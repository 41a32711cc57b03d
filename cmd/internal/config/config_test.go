package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

// write puts files into a folder of their own and makes it the current one.
func write(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if dir, _, found := strings.Cut(name, "/"); found {
			must(t, os.MkdirAll(dir, 0o755))
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, ".psk") {
			mode = 0o600
		}
		must(t, os.WriteFile(name, []byte(text), mode))
		must(t, os.Chmod(name, mode))
	}
}

const minimal = "listen: {addresses: [198.51.100.1]}\n"

func TestDefaults(t *testing.T) {
	write(t, map[string]string{"a.yaml": minimal})
	cfg, ps := Load("a.yaml", checks)
	if ps != nil {
		t.Fatal(ps.Error())
	}
	if want := min(runtime.GOMAXPROCS(0), MaxShards); cfg.Shards != want {
		t.Errorf("%d shards, want %d", cfg.Shards, want)
	}
	cfg.Shards = 0
	const want = "{Listen:{Addresses:[198.51.100.1] Interfaces:[]} " +
		"XDP:{Keepalive:answer AnswerInterval:10s Capacity:65536 StrangerPass:false PassEvery:0 KeepTags:false} Dataplane:userspace Shards:0 " +
		"HalfOpen:{CookiesFrom:0 PerSource:0 Max:0} " +
		"Unprotected:block Bypass:[] Control:{Socket: Group:<nil> ReadGroup:<nil>} Log:{Level:INFO Format:text} Connections:[] Pools:[] Secrets:[] Notes:}"
	if got := strings.Replace(fmt.Sprintf("%+v", *cfg), cfg.Notes.Error(), "", 1); got != want {
		t.Errorf(" got %s\nwant %s", got, want)
	}
}

func TestConnectionDefaults(t *testing.T) {
	c := newLoader(checks).defaults
	if !slices.Equal(c.Proposals, DefaultProposals) || !slices.Equal(c.ESPProposals, DefaultESPProposals) {
		t.Errorf("proposals %q and %q", c.Proposals, c.ESPProposals)
	}
	want := DPD{"idle", 30 * time.Second, Retransmit{4 * time.Second, 1.8, 5}, 10 * time.Minute, "clear"}
	if c.DPD != want || c.NATKeepalive != 20*time.Second {
		t.Errorf("got %+v and %v", c.DPD, c.NATKeepalive)
	}
}

func TestRetransmitTotal(t *testing.T) {
	for _, c := range []struct {
		r    Retransmit
		want time.Duration
	}{
		{retransmitDefault, 165061120 * time.Microsecond}, // the 165 s of the documentation
		{retransmitFast, 13187500 * time.Microsecond},
		{Retransmit{time.Second, 1, 1}, 2 * time.Second},
	} {
		if got := c.r.Total().Round(time.Microsecond); got != c.want {
			t.Errorf("%+v: %v, want %v", c.r, got, c.want)
		}
	}
}

func TestShardsNeverExceedCapacity(t *testing.T) {
	l := newLoader(checks)
	l.cfg.XDP.Capacity = 1
	if cfg, _ := l.finish(); cfg.Shards != 1 {
		t.Errorf("%d shards for one tunnel", cfg.Shards)
	}
}

func TestFirstFile(t *testing.T) {
	write(t, map[string]string{"open.yaml": minimal})
	must(t, os.Chmod("open.yaml", 0o666))
	must(t, syscall.Mkfifo("pipe.yaml", 0o600))
	must(t, os.Mkdir("folder.yaml", 0o755))
	for name, want := range map[string]string{
		"none.yaml":   "none.yaml: no such file or directory",
		"pipe.yaml":   "pipe.yaml: not a regular file", // and no waiting for a writer
		"folder.yaml": "folder.yaml: a directory, not a file",
		"open.yaml":   "open.yaml: everyone may write to it (mode 0666); take that right away: chmod go-w",
		"a\nb.yaml":   `"a\nb.yaml": no such file or directory`,
	} {
		cfg, ps := Load(name, checks)
		if got := ps.Error(); cfg != nil || got != want+"\n1 problem; nothing was changed" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestLoopBySymlink(t *testing.T) {
	write(t, map[string]string{"a.yaml": "include: [link.yaml]\n" + minimal})
	must(t, os.Symlink("a.yaml", "link.yaml"))
	if _, ps := Load("a.yaml", checks); len(ps) != 1 || !strings.Contains(ps.Error(), "a loop: a.yaml includes link.yaml") {
		t.Error(ps.Error())
	}
}

const withSecret = minimal + "secrets: [{id: a.example.org, psk_file: s/a.psk}]\n"

func TestSecretLength(t *testing.T) {
	for content, want := range map[string]string{
		"":                               "empty",
		"\n":                             "empty",
		"0x":                             "empty",
		"0x" + strings.Repeat("41", 19):  "only 19 bytes; a secret needs at least 20",
		"0x" + strings.Repeat("41", 20):  "",
		strings.Repeat("x", 19) + "\n":   "only 19 bytes; a secret needs at least 20",
		strings.Repeat("x", 20) + "\n":   "",
		strings.Repeat("x", 4096):        "",
		strings.Repeat("x", 4096) + "\n": "larger than 4096 bytes",
	} {
		write(t, map[string]string{"a.yaml": withSecret, "s/a.psk": content})
		if _, _, got := readPSK("s/a.psk"); got != want {
			t.Errorf("%d bytes: %q, want %q", len(content), got, want)
		}
	}
}

func TestSecretMode(t *testing.T) {
	for mode, fine := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o601: false, 0o620: false} {
		if got := openToOthers("", mode); (got == "") != fine {
			t.Errorf("%04o: %q", mode, got)
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	write(t, map[string]string{"a.yaml": withSecret, "s/a.psk": string(secretBytes(40))})
	cfg, ps := Load("a.yaml", checks)
	if ps != nil {
		t.Fatal(ps.Error())
	}
	psk := cfg.Secrets[0].PSK
	hidden := struct{ inner any }{cfg.Secrets} // unexported: printers cannot ask the methods
	var out bytes.Buffer
	for _, v := range []any{psk, &psk, cfg, *cfg, cfg.Secrets, hidden, map[string]PSK{"a": psk}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
	}
	must(t, json.NewEncoder(&out).Encode(cfg))
	out.WriteString(dump(t, cfg))
	raw := secretBytes(40)
	for _, form := range []string{canary, fmt.Sprintf("%x", raw)[:16], fmt.Sprintf("%X", raw)[:16], fmt.Sprint(raw[:6])[1:20], fmt.Sprintf("%#v", raw[:4])[7:20]} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q was printed", form)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was redacted")
	}
}

// asNobody runs f on a thread that reads files as an ordinary user does.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() { // ends with f; its thread, still locked, ends with it
		defer close(done)
		runtime.LockOSThread()
		if err := syscall.Setfsuid(65534); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func TestCheckWithoutTheRightToRead(t *testing.T) {
	write(t, map[string]string{"a.yaml": withSecret, "s/a.psk": string(secretBytes(32))})
	must(t, os.Chmod("s/a.psk", 0o000))
	asNobody(t, func() {
		cfg, ps := Load("a.yaml", checks)
		const want = "a.yaml:2:41: secrets.psk_file: s/a.psk: permission denied\n1 problem; nothing was changed"
		if cfg != nil || ps.Error() != want {
			t.Errorf("Load: %s", ps.Error())
		}
		cfg, ps = Check("a.yaml", checks)
		if ps != nil || !strings.Contains(cfg.Notes.Error(), "s/a.psk: not readable for you") {
			t.Errorf("Check: %v %s", cfg, ps.Error())
		}
	})
	must(t, os.Chmod("s/a.psk", 0o040)) // visible from outside
	asNobody(t, func() {
		if _, ps := Check("a.yaml", checks); len(ps) != 1 || !strings.Contains(ps[0].Text, "open to others (mode 0040)") {
			t.Errorf("Check: %s", ps.Error())
		}
	})
}

// TestNotesDoNotDrown: of what is alike a few are shown, and how many more.
func TestNotesDoNotDrown(t *testing.T) {
	for n, want := range map[int]string{
		maxAlike + 1: "a.yaml:2:5: 1\na.yaml:2:5: 2\na.yaml:2:5: 3\na.yaml:2:5: 4\na.yaml:2:5: 5\n",
		maxAlike + 2: "a.yaml:2:5: 1\na.yaml:2:5: 2\na.yaml:2:5: 3\na.yaml:2:5: 4\na.yaml:2:5: 2 more\n",
	} {
		l := newLoader(checks)
		var alike Problems
		for i := range n {
			alike = append(alike, Problem{Pos{"a.yaml", 2, 5}, "", fmt.Sprint(i + 1)})
		}
		l.noteSome(alike, "more")
		if got, _, _ := strings.Cut(l.cfg.Notes.Error(), fmt.Sprint(len(l.cfg.Notes), " problems")); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestCheckHoldsNoSecret(t *testing.T) {
	write(t, map[string]string{"a.yaml": withSecret, "s/a.psk": string(secretBytes(32))})
	cfg, ps := Check("a.yaml", checks)
	if ps != nil || len(cfg.Secrets) != 1 || cfg.Secrets[0].PSK.Bytes() != nil {
		t.Errorf("%s %v", ps.Error(), cfg)
	}
	write(t, map[string]string{"a.yaml": withSecret})
	if _, ps := Check("a.yaml", checks); len(ps) != 1 {
		t.Errorf("a missing secret is one for Check too: %s", ps.Error())
	}
}

func TestUnreadableFolderIsNotEmpty(t *testing.T) {
	write(t, map[string]string{"a.yaml": "include: [conf.d/*.yaml]\n" + minimal, "conf.d/b.yaml": ""})
	must(t, os.Chmod("conf.d", 0o000))
	t.Cleanup(func() { must(t, os.Chmod("conf.d", 0o755)) })
	asNobody(t, func() {
		const want = "a.yaml:1:11: include: conf.d: permission denied\n1 problem; nothing was changed"
		if _, ps := Load("a.yaml", checks); ps.Error() != want {
			t.Error(ps.Error())
		}
	})
}

func TestNotes(t *testing.T) {
	write(t, map[string]string{"a.yaml": `include: [conf.d/*.yaml]
listen: {addresses: [198.51.100.1]}
connections:
  anna:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: "*@example.org"}
    children: {net: {local_ts: [10.0.0.0/8]}}
`})
	cfg, ps := Load("a.yaml", checks)
	if ps != nil {
		t.Fatal(ps.Error())
	}
	const want = `a.yaml:1:11: include: conf.d/*.yaml matches no file
a.yaml:6:29: remote.id: no secret for *@example.org, so nobody can use this connection
`
	if got, _, _ := strings.Cut(cfg.Notes.Error(), "2 problems"); got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestSimilar(t *testing.T) {
	keys := []string{"mode", "delay", "retransmit", "max_suppress", "action", "id"}
	for word, want := range map[string]string{
		"dely": "delay", "dleay": "delay", "delays": "delay", "retransmits": "retransmit", "max-suppress": "max_suppress",
		"maxsuppress": "max_suppress", "retrans": "retransmit", "moed": "mode", "in": "id", "di": "id", "colour": "", "x": "", "": "",
		"delay": "delay", strings.Repeat("delay", 20): "",
	} {
		if got := newLoader(checks).similar(word, keys); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// TestPairsAgainstEachOther: a secret serves a connection if there is a peer that
// both are for, found the slow way.
func TestPairsAgainstEachOther(t *testing.T) {
	peers := strings.Fields(`%any a.b.c b.c c x.b.c y.x.b.c *.c *.b.c *.a.b.c *.x.b.c m@b.c n@b.c m@c *@b.c *@c
		203.0.113.1 2001:db8::1 keyid:a keyid:A A.B.C M@B.C`)
	someone := map[string][]string{"%any": peers, "*.c": {"z.c"}, "*.b.c": {"z.b.c"}, "*.a.b.c": {"z.a.b.c"}, "*.x.b.c": {"z.x.b.c"}, "*@b.c": {"z@b.c"}, "*@c": {"z@c"}}
	pattern := func(s string) ike.Pattern {
		p, err := ike.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	meet := func(a, b ike.Pattern) bool {
		return slices.ContainsFunc(slices.Concat(peers, someone[a.String()], someone[b.String()]), func(s string) bool {
			id, exact := pattern(s).Exact()
			return exact && a.Match(id) && b.Match(id)
		})
	}
	own, other := ike.Identity{Kind: 2, Data: "vpn.b.c"}, ike.Identity{Kind: 2, Data: "vpn2.b.c"}
	for _, a := range peers {
		for _, b := range peers {
			for _, local := range []ike.Identity{{}, own, other} {
				set := newPairSet()
				set.add(pair{local, pattern(a)}, Pos{})
				want := local != other && meet(pattern(a), pattern(b))
				if got := set.serves(own, pattern(b)); got != want {
					t.Errorf("%v serves %s: %v, want %v", pair{local, pattern(a)}, b, got, want)
				}
			}
		}
	}
	set := newPairSet()
	set.add(pair{remote: ike.Only(own)}, Pos{})
	if !set.serves(own, pattern("m@b.c")) || set.serves(other, pattern("m@b.c")) {
		t.Error("what stands under our own identity is not for whoever has no other secret")
	}
}

func TestOverlapAgainstEveryPair(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 2000 {
		l := newLoader(checks)
		for i := range 6 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.Intn(4)), byte(r.Intn(256)), 0}), 12+r.Intn(14)).Masked()
			l.cfg.Pools = append(l.cfg.Pools, Pool{Name: fmt.Sprint(i), Pos: Pos{"a", i + 1, 1}, Addresses: p})
		}
		want := map[string]bool{} // pools that some other overlaps
		for i, p := range l.cfg.Pools {
			for _, q := range l.cfg.Pools[:i] {
				if p.Addresses.Overlaps(q.Addresses) {
					want[p.Name], want[q.Name] = true, true
				}
			}
		}
		l.checkOverlap()
		got := map[string]bool{}
		for _, p := range l.problems {
			words := strings.Fields(p.Text) // A overlaps B of pool NAME at PLACE
			got[strings.Split(p.Key, ".")[1]], got[words[5]] = true, true
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("reported %v, want %v: %v", got, want, l.cfg.Pools)
		}
	}
}
