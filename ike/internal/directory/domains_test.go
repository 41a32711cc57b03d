package directory

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

// TestDomains: a pool's domains go with its DNS servers, for the family that was
// leased.
func TestDomains(t *testing.T) {
	named := office("10.99.0.0/28")
	named.Domains = []string{"corp.example.org", "lab"}
	v6 := Pool{Name: "v6", Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}, Domains: []string{"lab"}}
	b := newBook(t, named, v6)
	b.conn.Pools = []string{"office", "v6"}
	want := []policy.Domain{{Name: "corp.example.org"}, {Name: "lab"}, {Name: "lab", IPv6: true}}
	if a := b.admit(b.comes(1, "anna@example.org", wants("0.0.0.0", "::")))[0]; !slices.Equal(a.Domains, want) {
		t.Errorf("%+v", a)
	}
	if a := b.admit(b.comes(2, "bert@example.org", wants("::")))[0]; !slices.Equal(a.Domains, want[2:]) {
		t.Errorf("%+v", a)
	}
}
