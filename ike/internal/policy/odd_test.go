package policy

import (
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// oddities are connections of every kind but for one for everybody.
var oddities = []string{"anna vpn.example.org anna.example.org", "names vpn.example.org *.example.org", "kate vpn.example.org kate@example.org",
	"mail vpn.example.org *@example.org", "four vpn.example.org 203.0.113.9", "six vpn.example.org 2001:db8::9", "box vpn.example.org keyid:box",
	"bytes vpn.example.org keyid:#00ff", "top vpn.example.org *.org"}

// TestOddIdentities: nobody gets a connection but him whose identity it is, by its
// bytes or, for names and mailboxes, but for their case. The rest are strangers, or
// nobody at all.
func TestOddIdentities(t *testing.T) {
	const stranger, nobody = "anyone", "nobody"
	for _, tt := range []struct {
		kind wire.IDType
		data string
		want string
	}{
		{wire.IDFQDN, "anna.example.org", "anna"},
		{wire.IDFQDN, "ANNA.Example.ORG", "anna"},
		{wire.IDFQDN, "anna.example.org.", stranger},
		{wire.IDFQDN, ".anna.example.org", stranger},
		{wire.IDFQDN, "anna..example.org", stranger},
		{wire.IDFQDN, ".example.org", stranger},
		{wire.IDFQDN, ".org", stranger},
		{wire.IDFQDN, ".", stranger},
		{wire.IDFQDN, "example.org", "top"},
		{wire.IDFQDN, "org", stranger},
		{wire.IDFQDN, "notexample.org", "top"},
		{wire.IDFQDN, "x.example.org", "names"},
		{wire.IDFQDN, "*.example.org", stranger},
		{wire.IDFQDN, "*.org", stranger},
		{wire.IDFQDN, "%any", stranger},
		{wire.IDFQDN, "*", stranger},
		{wire.IDFQDN, "kate@example.org", stranger},
		{wire.IDFQDN, "kate@x.example.org", stranger},
		{wire.IDFQDN, "/etc/x.example.org", stranger},
		{wire.IDFQDN, "203.0.113.9", stranger},
		{wire.IDFQDN, "2001:db8::9", stranger},
		{wire.IDFQDN, "keyid:box", stranger},
		{wire.IDFQDN, "@anna.example.org", stranger},
		{wire.IDFQDN, "anna.example.org\x00", nobody},
		{wire.IDFQDN, "anna.example.org\x00.evil.net", nobody},
		{wire.IDFQDN, "evil.net\x00.example.org", nobody},
		{wire.IDFQDN, "anna.example.org\n", nobody},
		{wire.IDFQDN, " anna.example.org", nobody},
		{wire.IDFQDN, "anna\x7f.example.org", nobody},
		{wire.IDFQDN, "\u0430nna.example.org", nobody},                     // a Cyrillic a
		{wire.IDFQDN, "\uff41nna.example.org", nobody},                     // full width
		{wire.IDFQDN, "xn--nna-5cd.example.org", "names"},                  // the Cyrillic one in ASCII
		{wire.IDFQDN, strings.Repeat("x", 63) + ".example.org", "names"},   // a label as long as may be
		{wire.IDFQDN, strings.Repeat("x", 64) + ".example.org", stranger},  // and longer
		{wire.IDFQDN, strings.Repeat("x.", 58) + "example.org", "names"},   // 127 bytes
		{wire.IDFQDN, strings.Repeat("x.", 58) + "y.example.org", nobody},  // 129
		{wire.IDFQDN, strings.Repeat("x", 255), nobody},                    // a whole one
		{wire.IDFQDN, strings.Repeat("x.", 1<<15) + "example.org", nobody}, // all that a payload holds
		{wire.IDFQDN, "", nobody},
		{wire.IDRFC822, "kate@example.org", "kate"},
		{wire.IDRFC822, "Kate@EXAMPLE.org", "kate"},
		{wire.IDRFC822, "\u212aate@example.org", nobody}, // the Kelvin sign, whose lower case is k
		{wire.IDRFC822, "kate@example.org@example.org", stranger},
		{wire.IDRFC822, "kate@evil.net@example.org", stranger},
		{wire.IDRFC822, "@example.org", stranger},
		{wire.IDRFC822, "*@example.org", stranger},
		{wire.IDRFC822, "kate@x.example.org", stranger},
		{wire.IDRFC822, "kate", stranger},
		{wire.IDRFC822, "kate@", stranger},
		{wire.IDRFC822, "kate@example.org.", stranger},
		{wire.IDRFC822, "anna.example.org", stranger},
		{wire.IDRFC822, "\x1b[2J@example.org", nobody},
		{wire.IDRFC822, "a+b/c'd\"e@example.org", "mail"},
		{wire.IDRFC822, "", nobody},
		{wire.IDIPv4, "\xcb\x00\x71\x09", "four"},
		{wire.IDIPv4, "203.0.113.9", nobody},
		{wire.IDIPv4, "\xcb\x00\x71", nobody},
		{wire.IDIPv4, "", nobody},
		{wire.IDIPv4, "\x00\x00\x00\x00", stranger},
		{wire.IDIPv4, six, nobody},
		{wire.IDIPv6, six, "six"},
		{wire.IDIPv6, "\xcb\x00\x71\x09", nobody},
		{wire.IDIPv6, strings.Repeat("\x00", 10) + "\xff\xff\xcb\x00\x71\x09", stranger}, // ::ffff:203.0.113.9
		{wire.IDKeyID, "box", "box"},
		{wire.IDKeyID, "Box", stranger},
		{wire.IDKeyID, "box\x00", stranger},
		{wire.IDKeyID, "\x00\xff", "bytes"},
		{wire.IDKeyID, "#00ff", stranger},
		{wire.IDKeyID, "anna.example.org", stranger},
		{wire.IDKeyID, "", nobody},
		{wire.IDKeyID, strings.Repeat("x", 128), stranger},
		{wire.IDKeyID, strings.Repeat("x", 129), nobody},
		{wire.IDDERDN, "0\x141\x120\x10\x06\x03U\x04\x03\x0c\x09anna.example.org", stranger},
		{wire.IDDERDN, "", nobody},
		{wire.IDDERGN, "\x82\x10anna.example.org", stranger},
		{wire.IDNull, "", nobody},
		{wire.IDNull, "anna.example.org", nobody},
		{0, "anna.example.org", nobody},
		{0, "", nobody},
		{255, "\x00", stranger},
		{255, "", nobody},
	} {
		checkOdd(t, tt.kind, tt.data, tt.want)
	}
	for kind := range 256 {
		want := stranger
		switch wire.IDType(kind) {
		case wire.IDFQDN:
			want = "anna"
		case 0, wire.IDIPv4, wire.IDNull:
			want = nobody
		}
		checkOdd(t, wire.IDType(kind), "anna.example.org", want)
	}
}

const six = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09"

// checkOdd looks where an identity comes in, with a connection for everybody and
// without.
func checkOdd(t *testing.T, kind wire.IDType, data, want string) {
	t.Helper()
	conns := made(t, connection, oddities)
	id, known := FromPayload(&wire.ID{Kind: kind, Data: []byte(data)})
	if !known {
		if id.Kind != kind || id.Data != data {
			t.Errorf("kind %d %.40q is nobody, and claims to be %+v", kind, data, id)
		}
		if want != "nobody" {
			t.Errorf("kind %d %.40q is nobody, want %s", kind, data, want)
		}
		return
	}
	got := "-"
	if conn, _ := NewSet(conns, nil).Find(Claim{ID: id}); conn != nil {
		got = conn.Name
	}
	if all, rule := NewSet(append(conns, connection(t, "anyone vpn.example.org %any")), nil).Find(Claim{ID: id}); rule != Accepted || got != "-" && all.Name != got {
		t.Errorf("kind %d %.40q: %s alone, and %v beside one for everybody", kind, data, got, all)
	} else if all.Name != want {
		t.Errorf("kind %d %.40q gets %s, want %s", kind, data, all.Name, want)
	}
	checkName(t, id)
}

// checkName: a name is printable and short enough for a log, and what reads as an
// identity is this one.
func checkName(t testing.TB, id ID) {
	t.Helper()
	name := id.String()
	if !plain(name) || len(name) > len("keyid:#")+2*MaxID {
		t.Errorf("%+v is called %q", id, name)
	}
	if back, err := ParseID(name); err == nil && back != id {
		t.Errorf("%+v is called %q, which is %+v", id, name, back)
	}
	if p, err := ParsePattern(name); err == nil && p != Only(id) {
		t.Errorf("%+v is called %q, which is the pattern %+v", id, name, p)
	}
	if text, err := id.MarshalText(); err != nil || string(text) != name {
		t.Errorf("%q is marshalled as %q, %v", name, text, err)
	}
}
