package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
)

// text is proposals as they are written.
func text(ps []suite.Proposal) string {
	var names []string
	for _, p := range ps {
		names = append(names, p.String())
	}
	return strings.Join(names, " ")
}

// TestOffers: whoever calls from anywhere may choose from what those have who do,
// and from a pinned address first from what is pinned there: each once, in the order
// of the connections' names, whatever that of the file.
func TestOffers(t *testing.T) {
	const weak, mixed = "aes128-sha256-ecp256", "aes256-sha256-ecp256"
	conns := made(t, connection, []string{"b vpn.example.org %any " + old, "a vpn.example.org *.a.example.org " + strong, "c vpn.example.org *.c.example.org " + strong,
		"e vpn.example.org e.example.org @203.0.113.7 @203.0.113.8 " + weak, "d vpn.example.org d.example.org @203.0.113.7 " + mixed})
	conns[3].Proposals = append(conns[3].Proposals, proposals(t, old)...)
	for order := range orders(conns) {
		set := NewSet(order, nil)
		for from, want := range map[string][]string{
			"198.18.0.1":  {strong, old},
			"203.0.113.7": {mixed, weak, old, strong},
			"203.0.113.8": {weak, old, strong},
		} {
			a := netip.MustParseAddr(from)
			if got := text(set.Proposals(a)); got != text(proposals(t, want...)) {
				t.Fatalf("from %s: %s, want %v", from, got, want)
			}
			if set.Pinned(a) != (from != "198.18.0.1") {
				t.Fatalf("%s is pinned: %v", from, set.Pinned(a))
			}
		}
		if c := set.ByName("e"); c == nil || c.Name != "e" || set.ByName("x") != nil {
			t.Fatalf("e is %+v, x %+v", c, set.ByName("x"))
		}
		if len(set.Connections) != len(conns) || set.Connections[0] != order[0] {
			t.Fatal("the connections are not those given")
		}
	}
}

// TestAllows: each part of what was agreed must be the connection's, and in one of
// its proposals.
func TestAllows(t *testing.T) {
	c := Connection{Proposals: proposals(t, "aes256gcm16-aes128gcm16-prfsha384-x25519", "aes256-sha256-sha384-ecp256-ecp384")}
	for proposal, want := range map[string]bool{
		"aes256gcm16-prfsha384-x25519":   true,
		"aes128gcm16-prfsha384-x25519":   true,
		"aes256-sha256-ecp256":           true,
		"aes256-sha384-ecp384":           true,
		"aes256gcm16-prfsha256-x25519":   false, // the PRF
		"aes256gcm16-prfsha384-ecp256":   false, // the group, though the other proposal has it
		"aes128-sha256-ecp256":           false, // the key's length
		"aes256-sha512-ecp256":           false, // integrity and PRF
		"aes256-sha512-prfsha256-ecp256": false, // integrity
		"aes256-sha256-x25519":           false,
	} {
		if got := c.Allows(chosen(t, proposal)); got != want {
			t.Errorf("%s is allowed: %v", proposal, got)
		}
	}
	if got := fmt.Sprint(c.Groups()); got != "[31 19 20]" {
		t.Errorf("groups %s", got)
	}
	c.Proposals = append(c.Proposals, proposals(t, "aes128-sha256-ecp256-modp2048")...)
	if got := fmt.Sprint(c.Groups()); got != "[31 19 20 14]" {
		t.Errorf("groups %s", got)
	}
}

// TestSecretsAreNotPrinted: however a secret or a set is printed, its keys are not.
func TestSecretsAreNotPrinted(t *testing.T) {
	two, one := secret(t, "vpn.example.org,anna.example.org"), secret(t, "*.example.org")
	two.PSK, one.PSK = []byte("canary"), []byte("canary")
	set := NewSet(made(t, connection, []string{"a vpn.example.org %any"}), []Secret{two, one})
	for want, v := range map[string]any{"[secret of vpn.example.org and anna.example.org]": two, "[secret of *.example.org]": one, "[policy of 1 connections]": set} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			if got := fmt.Sprintf(verb, v); got != want {
				t.Errorf("%s: %s", verb, got)
			}
		}
	}
	if b, err := json.Marshal([]Secret{two, one}); err != nil || string(b) != `["[secret of vpn.example.org and anna.example.org]","[secret of *.example.org]"]` {
		t.Errorf("%s, %v", b, err)
	}
}

// TestCompare: both ends of a tunnel agree who is the lower, by what is on the wire:
// the kind, then the bytes.
func TestCompare(t *testing.T) {
	order := made(t, identity, []string{"203.0.113.9", "203.0.113.10", "198.51.100.1", "a.example.org", "b.example.org", "a@example.org", "2001:db8::1", "keyid:a"})
	order[0], order[1], order[2] = order[2], order[0], order[1]
	for i, a := range order {
		for j, b := range order {
			if got := a.Compare(b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%v compares to %v as %d", a, b, got)
			}
		}
	}
}

func TestAddr(t *testing.T) {
	for _, s := range []string{"203.0.113.9", "2001:db8::9"} {
		if a, ok := identity(t, s).Addr(); !ok || a.String() != s {
			t.Errorf("%s is the address %v, %v", s, a, ok)
		}
	}
	for _, id := range []ID{{}, {2, "\xcb\x00\x71\x09"}, {1, six}, {5, "\xcb\x00\x71\x09"}, {1, "\xcb"}, {5, "\xcb"}, {11, six}} {
		if a, ok := id.Addr(); ok {
			t.Errorf("%+v is the address %v", id, a)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{Timeout: time.Second, Base: 1.5, Tries: 4}
	for n, want := range []time.Duration{time.Second, 1500 * time.Millisecond, 2250 * time.Millisecond, 3375 * time.Millisecond, 5062500 * time.Microsecond} {
		if got := b.Wait(n); got != want {
			t.Errorf("wait %d is %v, want %v", n, got, want)
		}
	}
	if got := b.Total(); got != 13187500*time.Microsecond {
		t.Errorf("in all %v", got)
	}
	if got := DefaultBackoff.Total().Round(time.Millisecond); got != 165061*time.Millisecond {
		t.Errorf("the default is %v", got)
	}
}

func TestUnique(t *testing.T) {
	for name, want := range map[string]Unique{"no": UniqueNo, "never": UniqueNever, "keep": UniqueKeep, "replace": UniqueReplace} {
		if u, ok := ParseUnique(name); !ok || u != want {
			t.Errorf("%s is %d, %v", name, u, ok)
		}
	}
	if _, ok := ParseUnique("yes"); ok {
		t.Error("yes is a kind of uniqueness")
	}
}

// TestNames: what nobody has to read is shown as kind and bytes.
func TestNames(t *testing.T) {
	for want, id := range map[string]ID{
		"": {}, "id0:61": {0, "a"}, "id1:61": {1, "a"}, "id5:cb007109": {5, "\xcb\x00\x71\x09"}, "keyid:a": {11, "a"}, "keyid:#6120": {11, "a "},
		"keyid:#2361": {11, "#a"}, "keyid:#": {11, ""}, "keyid:~": {11, "~"}, "keyid:#7f": {11, "\x7f"}, "id2:2e": {2, "."}, "id255:ff": {255, "\xff"}, "a@b": {3, "a@b"},
	} {
		if got := id.String(); got != want {
			t.Errorf("%+v is called %q", id, got)
		}
	}
	if got := fmt.Sprint(quoted(strings.Repeat("x", 141))); got != `"`+strings.Repeat("x", 140)+`"…` {
		t.Errorf("what is too long is shown as %s", got)
	}
	if got := quoted(strings.Repeat("x", 140)); strings.Contains(got, "…") {
		t.Errorf("what is not is shown as %s", got)
	}
}
