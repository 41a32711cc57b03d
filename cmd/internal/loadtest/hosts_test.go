package loadtest

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestHosts(t *testing.T) {
	for _, c := range []struct {
		prefix string
		most   int
		want   string
	}{
		{"10.7.0.0/24", 3, "[10.7.0.1 10.7.0.2 10.7.0.3]"},
		{"10.7.0.0/30", 9, "[10.7.0.1 10.7.0.2]"},
		{"10.7.0.0/31", 9, "[10.7.0.0 10.7.0.1]"},
		{"10.7.0.9/32", 9, "[10.7.0.9]"},
		{"255.255.255.252/30", 9, "[255.255.255.253 255.255.255.254]"},
		{"255.255.255.255/32", 9, "[255.255.255.255]"},
		{"10.7.3.4/29", 2, "[10.7.3.1 10.7.3.2]"},
		{"2001:db8::/64", 2, "[2001:db8::1 2001:db8::2]"},
		{"2001:db8::/126", 9, "[2001:db8::1 2001:db8::2 2001:db8::3]"},
		{"2001:db8::/127", 9, "[2001:db8:: 2001:db8::1]"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", 9,
			"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"},
	} {
		if got := fmt.Sprint(Hosts(netip.MustParsePrefix(c.prefix), c.most)); got != c.want {
			t.Errorf("%d of %s: %s, want %s", c.most, c.prefix, got, c.want)
		}
	}
	if n := len(Hosts(netip.MustParsePrefix("10.7.0.0/16"), 1<<20)); n != 65534 {
		t.Errorf("a /16 has %d hosts", n)
	}
}
