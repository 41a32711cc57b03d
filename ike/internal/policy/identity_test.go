package policy

import (
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// The name of an identity is what leases and INITIAL_CONTACT go by: nobody must
// get another's by sending it as another kind.
func TestIdentitiesHaveNamesOfTheirOwn(t *testing.T) {
	names := map[string]ID{}
	for _, tt := range []struct {
		id   ID
		want string // empty: whatever nobody else has
	}{
		{ID{wire.IDRFC822, "anna@vpn.example.org"}, "anna@vpn.example.org"},
		{ID{wire.IDFQDN, "anna@vpn.example.org"}, ""},
		{ID{wire.IDFQDN, "vpn.example.org"}, "vpn.example.org"},
		{ID{wire.IDRFC822, "vpn.example.org"}, ""},
		{ID{wire.IDFQDN, "@vpn.example.org"}, ""},
		{ID{wire.IDIPv4, "\xcb\x00\x71\x09"}, "203.0.113.9"},
		{ID{wire.IDFQDN, "203.0.113.9"}, ""},
		{ID{wire.IDIPv6, "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"}, "2001:db8::1"},
		{ID{wire.IDFQDN, "2001:db8::1"}, ""},
		{ID{wire.IDKeyID, "branch"}, "keyid:branch"},
		{ID{wire.IDFQDN, "keyid:branch"}, ""},
		{ID{wire.IDKeyID, "a\x00"}, ""},
		{ID{wire.IDKeyID, `"a\x00"`}, ""},
		{ID{9, "01"}, "id9:3031"},
		{ID{wire.IDFQDN, "id9:3031"}, ""},
	} {
		name := tt.id.String()
		if tt.want != "" && name != tt.want {
			t.Errorf("%+v is called %q, want %q", tt.id, name, tt.want)
		}
		if other, ok := names[name]; ok {
			t.Errorf("%+v and %+v are both called %q", tt.id, other, name)
		}
		names[name] = tt.id
	}
}
