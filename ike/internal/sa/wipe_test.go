package sa

import (
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// secrets are the places where a node's key material has stood.
type secrets map[*byte]secret

type secret struct {
	what  string
	bytes []byte
}

func (s secrets) note(what string, b []byte) {
	if len(b) > 0 {
		s[&b[0]] = secret{what, b}
	}
}

// left names those that are not wiped.
func (s secrets) left() (names []string) {
	for _, at := range s {
		if slices.ContainsFunc(at.bytes, func(b byte) bool { return b != 0 }) {
			names = append(names, at.what)
		}
	}
	slices.Sort(names)
	return names
}

func (s secrets) holds(what string) bool {
	for _, at := range s {
		if at.what == what {
			return true
		}
	}
	return false
}

// drawn notes the private exponents of a MODP group, which are the only random
// bytes of their length.
type drawn struct {
	io.Reader
	into secrets
}

func (d drawn) Read(p []byte) (int, error) {
	if len(p) == 48 {
		d.into.note("private value", p)
	}
	return d.Reader.Read(p)
}

// watchSecrets notes where a node's key material stands, from now on.
func watchSecrets(n *node) secrets {
	all := secrets{}
	n.env.Rand = drawn{n.env.Rand, all}
	n.onAgreed = func(a Agreed) { all.note("shared secret", a.Secret) }
	n.onSteps = func() {
		k, c := &n.sa.rec.Keys, &n.sa.rec.Child
		for what, key := range map[string]*suite.Key{"SK_d": &k.D, "SK_ai": &k.Ai, "SK_ar": &k.Ar, "SK_ei": &k.Ei, "SK_er": &k.Er,
			"SK_pi": &k.Pi, "SK_pr": &k.Pr, "inbound encryption": &c.InEncr, "inbound integrity": &c.InInteg,
			"outbound encryption": &c.OutEncr, "outbound integrity": &c.OutInteg} {
			all.note(what, key.Bytes())
		}
	}
	alloc := n.env.AllocSPI
	n.env.AllocSPI = func(now mono.Time) (uint32, bool) { n.onSteps(); return alloc(now) }
	return all
}

// lengthy have every kind of key: with a private value that can be reached, and
// with integrity keys.
func lengthy(t *testing.T, w *world) {
	for _, n := range []*node{w.client, w.gateway} {
		n.conn.Proposals = proposals(t, suite.ParseIKE, "aes256-sha256-modp2048")
		n.conn.Child.Proposals = proposals(t, suite.ParseESP, "aes256-sha256-esn")
		n.env.Policy = policy.NewSet([]*policy.Connection{n.conn}, []policy.Secret{{Remote: pattern("%any"), PSK: []byte(testPSK)}})
	}
}

// established are the keys of an SA that has come up.
var established = []string{"private value", "shared secret", "SK_d", "SK_ai", "SK_ar", "SK_ei", "SK_er", "SK_pi", "SK_pr",
	"inbound encryption", "inbound integrity", "outbound encryption", "outbound integrity"}

// halfway are those of one that has sent or taken IKE_SA_INIT.
var halfway = established[:9]

// TestWiped: whichever way an SA ends, nothing is left of its keys where they
// have stood.
func TestWiped(t *testing.T) {
	both := []string{"client", "gateway"}
	for _, c := range []struct {
		name   string
		script string // as of a transcript
		ends   []string
		had    []string
	}{
		{"deleted", "initiate; run 1s; terminate client; run 1s", both, established},
		{"deleted, unanswered", "initiate; run 1s; kill gateway; terminate client; run 4m", both[:1], established},
		{"dead", "initiate; run 1s; dead gateway", both[1:], established},
		{"replaced", "initiate; run 1s; replace gateway", both[1:], established},
		{"dropped by its owner", "initiate; run 1s; drop client; drop gateway", both, established},
		{"broke the protocol", "initiate; run 1s; request client broken; run 1s", both[1:], established},
		{"half-open", "initiate; run 15ms; kill client; run 4m", both[1:], halfway},
		{"half-open, given up", "initiate; run 15ms; terminate client; kill gateway; run 1s", both[:1], halfway[:1]},
		{"half-open, deleted in the key exchange", "slow client; initiate; terminate client; late client", both[:1], halfway[:1]},
		{"nobody there", "kill gateway; initiate; run 4m", both[:1], halfway[:1]},
		{"IKE_AUTH unanswered", "initiate; run 25ms; kill gateway; run 4m", both[:1], halfway},
		{"a bad value", "bad-value; initiate; run 1s; kill client", both[1:], halfway[:1]},
		{"the client is refused", "secret gateway another one of enough bytes; initiate; run 1s", both, halfway},
		{"refused later", "secret gateway another one of enough bytes; wait-refused; initiate; run 1m", both, halfway},
		{"the gateway is refused", "impostor; initiate; run 1s", both[:1], halfway},
		{"not admitted", "fail gateway Admit; initiate; run 1s", both, halfway},
		{"no slot", "no-slots client; initiate; run 1s", both[:1], halfway},
		{"not stored by the client", "fail client Persist; initiate; run 1s", both[:1], established},
		{"not stored by the gateway", "fail gateway Persist; initiate; run 1s", both, halfway},
		{"not installed, inbound", "fail client InstallInbound; initiate; run 1s", both, established},
		{"not installed, outbound", "fail client InstallOutbound; initiate; run 1s", both, established},
		{"not tracked", "fail client Track; initiate; run 1s", both, established},
		{"no Child SA", "no-slots gateway; initiate; run 1s", both, halfway},
		{"another group", "groups; initiate; run 25ms; terminate client; run 1s", both[:1], halfway[:1]},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			lengthy(t, w)
			all := map[string]secrets{}
			for _, n := range []*node{w.client, w.gateway} {
				all[n.name] = watchSecrets(n)
			}
			for line := range strings.SplitSeq(c.script, "; ") {
				w.wipeCommand(strings.Fields(line))
			}
			for _, name := range c.ends {
				for _, what := range c.had {
					if !all[name].holds(what) {
						t.Errorf("the %s has never had its %s", name, what)
					}
				}
				if left := all[name].left(); len(left) > 0 {
					t.Errorf("the %s still has: %v", name, left)
				}
			}
		})
	}
}

// wipeCommand has commands beside those of the transcripts.
func (w *world) wipeCommand(args []string) {
	switch args[0] {
	case "replace":
		w.do(w.node(args[1]), Replace{})
	case "drop":
		w.node(args[1]).sa.Wipe()
	case "bad-value":
		w.drop = func(f flight) bool {
			if m, err := wire.Parse(f.packet.Data); err == nil && f.from == w.client {
				ke, ok := wire.Find[*wire.KE](m.Payloads)
				if ok {
					clear(ke.Data)
					f.packet.Data = m.Append(nil)
					w.wire, w.drop = append(w.wire, f), nil
					return true
				}
			}
			return false
		}
	case "wait-refused":
		w.gateway.env.FailedAuth = func(mono.Time, netip.Addr, policy.ID) time.Duration { return 5 * time.Second }
	case "impostor":
		w.gateway.onAdmit = func() {
			w.gateway.env.Policy = policy.NewSet([]*policy.Connection{w.gateway.conn}, []policy.Secret{{Remote: pattern("%any"), PSK: []byte("what the impostor can guess")}})
		}
	case "groups":
		w.client.conn.Proposals = proposals(w.t, suite.ParseIKE, "aes256-sha256-modp3072", "aes256-sha256-modp2048")
		w.client.env.Policy = policy.NewSet([]*policy.Connection{w.client.conn}, []policy.Secret{{Remote: pattern("%any"), PSK: []byte(testPSK)}})
	case "slow":
		w.node(args[1]).slow = true
	case "late":
		n := w.node(args[1])
		w.do(n, n.late)
	default:
		w.command(args)
	}
}

// TestWipedWhileItLives: what an SA does not need any more goes before its end.
func TestWipedWhileItLives(t *testing.T) {
	w := newWorld(t)
	lengthy(t, w)
	client, gateway := watchSecrets(w.client), watchSecrets(w.gateway)
	w.establish()
	want := []string{"SK_ai", "SK_ar", "SK_d", "SK_ei", "SK_er"}
	child := []string{"inbound encryption", "inbound integrity", "outbound encryption", "outbound integrity"}
	for name, s := range map[string]secrets{"client": client, "gateway": gateway} {
		if got := s.left(); !slices.Equal(got, slices.Concat(want, child)) {
			t.Errorf("established, the %s has %v", name, got)
		}
	}
	w.command([]string{"request", "client", "delete-child"})
	w.run(time.Second)
	if got := gateway.left(); !slices.Equal(got, want) {
		t.Errorf("after its Child SA the gateway has %v", got)
	}
}
