package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// fits is whom a pattern allows, by its text alone.
func fits(pattern string, id ID) bool {
	local, domain, mailbox := strings.Cut(id.Data, "@")
	switch {
	case pattern == "%any":
		return true
	case strings.HasPrefix(pattern, "*@"):
		return id.Kind == wire.IDRFC822 && mailbox && plain(local) && !strings.Contains(local, "*") && IsName(domain) &&
			strings.EqualFold(domain, pattern[2:])
	case strings.HasPrefix(pattern, "*."):
		below := pattern[1:]
		return id.Kind == wire.IDFQDN && IsName(id.Data) && !looksNumeric(id.Data) && len(id.Data) > len(below) &&
			strings.EqualFold(id.Data[len(id.Data)-len(below):], below)
	}
	exact, err := ParseID(pattern)
	return err == nil && exact == id
}

// names are those of one to depth labels, each a or b.
func names(depth int) (out []string) {
	last := []string{"a", "b"}
	for range depth {
		out = append(out, last...)
		var next []string
		for _, n := range last {
			next = append(next, "a."+n, "b."+n)
		}
		last = next
	}
	return out
}

// TestPatternsAgainstTheirText: Match, Within and Wider say the same as every
// identity tried with every pattern. The identities go one label deeper, so that
// there is one in each pattern that no narrower one has.
func TestPatternsAgainstTheirText(t *testing.T) {
	var texts []string
	for _, n := range names(3) {
		texts = append(texts, n, "*."+n, "m@"+n, "*@"+n)
	}
	texts = append(texts, "%any", "203.0.113.9", "2001:db8::9", "keyid:a.b", "keyid:#00")
	var ids []ID
	for _, n := range names(4) {
		ids = append(ids, ID{wire.IDFQDN, n}, ID{wire.IDRFC822, "m@" + n}, ID{wire.IDRFC822, "n@" + n}, ID{wire.IDKeyID, n}, ID{wire.IDFQDN, "m@" + n}, ID{9, n})
	}
	ids = append(ids, identity(t, "203.0.113.9"), identity(t, "2001:db8::9"), identity(t, "keyid:#00"))
	for _, text := range texts {
		p := parsed(t, text)
		var wider []string
		for w := range p.Wider {
			if slices.Contains(texts, w.String()) {
				wider = append(wider, w.String())
			}
		}
		if wider[0] != text {
			t.Errorf("the closest to %s is %s", text, wider[0])
		}
		for _, id := range ids {
			if p.Match(id) != fits(text, id) {
				t.Errorf("%s allows %v: %v", text, id, p.Match(id))
			}
		}
		for _, other := range texts {
			within := !slices.ContainsFunc(ids, func(id ID) bool { return fits(text, id) && !fits(other, id) })
			if got := p.Within(parsed(t, other)); got != within || slices.Contains(wider, other) != within {
				t.Errorf("%s is within %s: %v, and the wider ones are %v", text, other, got, wider)
			}
		}
		for i := range wider[1:] {
			if !parsed(t, wider[i]).Within(parsed(t, wider[i+1])) {
				t.Errorf("%s is not the closest first: %v", text, wider)
			}
		}
	}
}

func TestWider(t *testing.T) {
	for in, want := range map[string]string{
		"a.b.c": "a.b.c *.b.c *.c %any", "*.b.c": "*.b.c *.c %any", "*.c": "*.c %any", "a": "a %any", "m@b.c": "m@b.c *@b.c %any", "*@b.c": "*@b.c %any",
		"%any": "%any", "keyid:a.b@c": "keyid:a.b@c %any", "97.46.98.46": "97.46.98.46 %any", // whose bytes are a.b.
	} {
		var got []string
		for p := range parsed(t, in).Wider {
			got = append(got, p.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is within %q", in, got)
		}
	}
}

// TestWiderStops: whoever has found his pattern gets no more.
func TestWiderStops(t *testing.T) {
	for most := 1; most <= 4; most++ {
		n := 0
		for range parsed(t, "a.b.c.d").Wider {
			if n++; n == most {
				break
			}
		}
		if n != most {
			t.Errorf("%d, want %d", n, most)
		}
	}
	for range parsed(t, "a@b.c").Wider {
		break
	}
}

func TestPatternText(t *testing.T) {
	for in, want := range map[string]string{
		"*.Example.Org": "*.example.org", "*@Example.Org": "*@example.org", "%any": "%any", "Anna@Example.Org": "anna@example.org",
		"keyid:Box": "keyid:Box", "keyid:#426f78": "keyid:Box", "2001:DB8:0::9": "2001:db8::9",
		"*.org": "*.org", "*." + strings.Repeat("x.", 62) + "xx": "*." + strings.Repeat("x.", 62) + "xx", "azAZ09-_.z.A.Z": "azaz09-_.z.a.z",
		"*." + strings.Repeat("x.", 60) + "x.org": "*." + strings.Repeat("x.", 60) + "x.org",
	} {
		p, err := ParsePattern(in)
		if err != nil || p.String() != want {
			t.Errorf("%s: %v, %v", in, p, err)
		}
		if text, err := p.MarshalText(); err != nil || string(text) != want {
			t.Errorf("%s is marshalled as %s, %v", in, text, err)
		}
		if _, exact := p.Exact(); exact != !strings.ContainsAny(want, "*%") {
			t.Errorf("%s is exact: %v", in, exact)
		}
	}
	for in, want := range map[string]string{
		"":                              "the identity is empty",
		"*":                             `write "%any" for everybody`,
		"*.":                            "is no identity",
		"*@":                            `"" is not a domain name`,
		"*..org":                        "is no identity",
		"*.*.org":                       "is no identity",
		"a.*.org":                       "is no identity",
		"*example.org":                  "is no identity",
		"%ANY":                          "is no identity",
		"*.org.":                        "write the name without the dot at its end",
		"*.9":                           "is no identity",
		"*.113.9":                       "is no identity",
		"*@*.org":                       `"*.org" is not a domain name`,
		"*@a@b":                         `"a@b" is not a domain name`,
		"*@\u212a.org":                  "is not a domain name",
		"\u212a.org":                    "is no identity",
		"*a@example.org":                "is not a mailbox",
		"a b@example.org":               "is not a mailbox",
		"@example.org":                  "without a leading @; write \"example.org\"",
		"C=DE, CN=anna":                 "distinguished names are not available yet",
		"10.0.0.256":                    "looks like an address and is not one",
		"a.99999999999999999999999":     "looks like an address and is not one",
		"0.0.0.0":                       "not an address that identifies anybody",
		"fe80::1%eth0":                  "not an address that identifies anybody",
		"::ffff:203.0.113.9":            "not an address that identifies anybody",
		"keyid:":                        "the key id is empty",
		"keyid:#":                       "the key id is empty",
		"keyid:#0":                      "an even number of hex digits",
		"keyid:#" + ff(129):             "a key id of 129 bytes; at most 128",
		"*." + strings.Repeat("x", 200): "an identity of 202 bytes; at most 128",
		"keyid:" + ff(65):               "a key id of 130 bytes; at most 128",
		strings.Repeat("x", 64):         "is no identity",
		strings.Repeat("x", 200):        "an identity of 200 bytes; at most 128",
		"a\x00.org":                     "is no identity",
	} {
		if p, err := ParsePattern(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", in, p, err)
		}
	}
	for in, same := range map[string]bool{"keyid:#" + ff(128): true, "keyid:" + ff(64): true, strings.Repeat("x.", 62) + "abcd": true, "1": true, "a.1b": true, "a.b1": true} {
		if id, err := ParseID(in); (err == nil) != same || id.String() == "" {
			t.Errorf("%q: %v, %v", in, id, err)
		}
	}
}

// ff are n bytes in hex.
func ff(n int) string { return strings.Repeat("ff", n) }

// FuzzIdentity: what can be read is printed as it is read, and a peer's identity
// has a name of its own and matches what its text says.
func FuzzIdentity(f *testing.F) {
	for _, s := range []string{"%any", "*.example.org", "*@example.org", "anna.example.org", "203.0.113.9", "keyid:#00ff", "*.9", "\u212a.org", "id9:00"} {
		for _, kind := range []byte{0, 1, 2, 3, 5, 9, 11} {
			f.Add(s, kind, []byte("x.example.org"))
			f.Add(s, kind, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, text string, kind byte, data []byte) {
		id, known := FromPayload(&wire.ID{Kind: wire.IDType(kind), Data: data})
		if known {
			checkName(t, id)
			again, known := FromPayload(id.Payload(wire.TypeIDi))
			if again != id || !known {
				t.Fatalf("%+v comes back as %+v", id, again)
			}
		}
		p, err := ParsePattern(text)
		if err != nil {
			return
		}
		if back, err := ParsePattern(p.String()); err != nil || back != p {
			t.Fatalf("%q is printed as %v, which is %v, %v", text, p, back, err)
		}
		if exact, ok := p.Exact(); ok {
			checkName(t, exact)
		}
		if known && p.Match(id) != fits(text, id) {
			t.Fatalf("%q allows %+v: %v", text, id, p.Match(id))
		}
	})
}
