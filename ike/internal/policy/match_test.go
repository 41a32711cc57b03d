package policy

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// parsed is a pattern of a test's making.
func parsed(t testing.TB, s string) Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// identity is one, "" none.
func identity(t testing.TB, s string) ID {
	t.Helper()
	if s == "" {
		return ID{}
	}
	id, err := ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// connection is made of "NAME LOCAL REMOTE [PROPOSAL] [@ADDRESS ...]".
func connection(t testing.TB, line string) *Connection {
	t.Helper()
	words := strings.Fields(line)
	c := &Connection{Name: words[0], LocalID: identity(t, words[1]), RemoteID: parsed(t, words[2])}
	proposal := strong
	for _, w := range words[3:] {
		if a, pin := strings.CutPrefix(w, "@"); pin {
			c.Pins = append(c.Pins, netip.MustParseAddr(a))
			continue
		}
		proposal = w
	}
	c.Proposals = proposals(t, proposal)
	return c
}

func proposals(t testing.TB, names ...string) (out []suite.Proposal) {
	t.Helper()
	for _, name := range names {
		p, err := suite.ParseIKE(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// Two that have nothing in common.
const (
	strong = "aes256gcm16-prfsha384-x25519"
	old    = "aes256-sha256-modp2048"
)

// chosen is what is agreed when both sides have nothing but one proposal.
func chosen(t testing.TB, proposal string) suite.Choice {
	t.Helper()
	p := proposals(t, proposal)
	c, err := suite.Choose(p, []wire.Proposal{p[0].Wire(1, wire.ProtoIKE, nil)}, wire.ProtoIKE, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c.Choice
}

// secret is made of "[OURS,]THEIRS"; its key is these words.
func secret(t testing.TB, ids string) Secret {
	t.Helper()
	own, peer, two := strings.Cut(ids, ",")
	if !two {
		own, peer = "", ids
	}
	return Secret{Local: identity(t, own), Remote: parsed(t, peer), PSK: []byte(ids)}
}

func made[T any](t testing.TB, of func(testing.TB, string) T, lines []string) (out []T) {
	t.Helper()
	for _, line := range lines {
		out = append(out, of(t, line))
	}
	return out
}

// orders yields every order of a list.
func orders[T any](list []T) iter.Seq[[]T] {
	var from func(i int, yield func([]T) bool) bool
	from = func(i int, yield func([]T) bool) bool {
		if i == len(list) {
			return yield(slices.Clone(list))
		}
		for j := i; j < len(list); j++ {
			list[i], list[j] = list[j], list[i]
			more := from(i+1, yield)
			list[i], list[j] = list[j], list[i]
			if !more {
				return false
			}
		}
		return true
	}
	return func(yield func([]T) bool) { from(0, yield) }
}

var rules = map[Rule]string{NoSuite: "suite", NoIdentity: "identity", NoOwnIdentity: "own identity", WrongAddress: "address", NoSecret: "secret"}

// decision is what a peer gets: "CONNECTION by SECRET", or the rule and the
// connection that he would have had.
func decision(t testing.TB, s *Set, claim Claim, agreed suite.Choice) string {
	t.Helper()
	conn, psk, rule := s.Match(claim, agreed)
	name := "-"
	if conn != nil {
		name = conn.Name
	}
	if rule == Accepted {
		return name + " by " + string(psk)
	}
	if psk != nil {
		t.Errorf("%+v is refused, and there is a key", claim)
	}
	return "no " + rules[rule] + ": " + name
}

// TestBestMatchWins: whatever the order of the file, and whatever else the peer
// brings along, the closest match is his, in one rule for connections and secrets.
func TestBestMatchWins(t *testing.T) {
	for _, world := range []struct {
		name           string
		conns, secrets []string
		peers          []string // CLAIM [as OURS] [from ADDRESS] [old]: DECISION
	}{
		{"patterns",
			[]string{"anyone vpn.example.org %any", "staff vpn.example.org *.example.org", "lab vpn.example.org *.lab.example.org " + old,
				"mail vpn.example.org *@example.org", "anna vpn.example.org anna.lab.example.org " + old, "anna2 vpn2.example.org anna.lab.example.org"},
			[]string{"%any", "*.example.org", "vpn2.example.org,anna.lab.example.org", "anna.lab.example.org", "vpn.example.org", "vpn.example.org,*@example.org"},
			[]string{
				"anna.lab.example.org old: anna by anna.lab.example.org",
				"anna.lab.example.org: no suite: anna", // nor does he fall into lab or staff
				"anna.lab.example.org as vpn.example.org old: anna by anna.lab.example.org",
				"anna.lab.example.org as vpn2.example.org: anna2 by vpn2.example.org,anna.lab.example.org",
				"anna.lab.example.org as vpn2.example.org old: no suite: anna2",
				"anna.lab.example.org as vpn3.example.org: no own identity: -",
				"ben.lab.example.org old: lab by *.example.org",
				"ben.lab.example.org: no suite: lab",
				"x.ben.lab.example.org old: lab by *.example.org",
				"ben.lab.example.org as vpn2.example.org old: no own identity: -",
				"lab.example.org: staff by *.example.org",
				"carl.example.org: staff by *.example.org",
				"carl.example.org old: no suite: staff",
				"example.org: anyone by vpn.example.org",
				"anna@example.org: mail by vpn.example.org,*@example.org",
				"anna@lab.example.org: anyone by vpn.example.org",
				"203.0.113.9 from 203.0.113.9: anyone by vpn.example.org",
				"keyid:box as vpn2.example.org: no own identity: -",
			}},
		{"addresses",
			[]string{"berlin vpn.example.org site.example.net @203.0.113.7 @203.0.113.6", "paris vpn.example.org site.example.net @203.0.113.8",
				"fixed vpn.example.org roam.example.net @203.0.113.9 " + old, "roaming vpn.example.org roam.example.net",
				"anyone vpn.example.org %any", "twin vpn2.example.org site.example.net @203.0.113.7"},
			[]string{"site.example.net", "vpn2.example.org,site.example.net", "vpn.example.org,roam.example.net", "roam.example.net", "vpn.example.org,%any", "vpn2.example.org,%any"},
			[]string{
				"site.example.net from 203.0.113.7: berlin by site.example.net",
				"site.example.net from 203.0.113.6: berlin by site.example.net",
				"site.example.net from 203.0.113.8: paris by site.example.net",
				"site.example.net from 203.0.113.8 old: no suite: paris",
				"site.example.net as vpn2.example.org from 203.0.113.7: twin by vpn2.example.org,site.example.net",
				"site.example.net as vpn2.example.org from 203.0.113.8: no address: twin",
				"site.example.net from 198.18.0.1: no address: berlin", // nor does he fall into anyone
				"site.example.net: no address: berlin",
				"roam.example.net from 203.0.113.9 old: fixed by vpn.example.org,roam.example.net",
				"roam.example.net from 203.0.113.9: no suite: fixed",
				"roam.example.net from 203.0.113.8: roaming by vpn.example.org,roam.example.net",
				"roam.example.net from 203.0.113.8 old: no suite: roaming",
				"other.example.net from 203.0.113.7: anyone by vpn.example.org,%any",
			}},
		{"holes",
			[]string{"anna vpn.example.org anna@example.org", "ben vpn2.example.org *@example.org"},
			[]string{"vpn2.example.org,anna@example.org", "carl@example.org", "vpn3.example.org"},
			[]string{
				"anna@example.org: no secret: anna",
				"anna@example.org as vpn2.example.org: ben by vpn2.example.org,anna@example.org",
				"anna@example.org as vpn3.example.org: no own identity: -",
				"carl@example.org: ben by carl@example.org",
				"dora@example.org: no secret: ben",
				"vpn.example.org: no identity: -",
			}},
	} {
		t.Run(world.name, func(t *testing.T) {
			conns, secrets := made(t, connection, world.conns), made(t, secret, world.secrets)
			n := 0
			for order := range orders(conns) {
				n++
				set := NewSet(order, rotated(secrets, n))
				for _, line := range world.peers {
					claim, agreed, want := peer(t, line)
					if got := decision(t, set, claim, agreed); got != want {
						t.Fatalf("%s: got %q", line, got)
					}
				}
			}
		})
	}
}

// rotated is the list in another order for each n.
func rotated[T any](list []T, n int) []T {
	out := append(slices.Clone(list[n%len(list):]), list[:n%len(list)]...)
	if n/len(list)%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// peer reads a line of TestBestMatchWins.
func peer(t testing.TB, line string) (c Claim, agreed suite.Choice, want string) {
	t.Helper()
	i := strings.Index(line, ": ")
	words := strings.Fields(line[:i])
	c.ID, agreed, want = identity(t, words[0]), chosen(t, strong), line[i+2:]
	for i, w := range words {
		switch w {
		case "as":
			c.Asked = identity(t, words[i+1])
		case "from":
			c.From = netip.MustParseAddr(words[i+1])
		case "old":
			agreed = chosen(t, old)
		}
	}
	return c, agreed, want
}

// TestSecretsInEveryOrder: a pair goes before one, the peer's own identity before
// a pattern, and that before our identity; %any is the last.
func TestSecretsInEveryOrder(t *testing.T) {
	closest := []string{"vpn.example.org,anna.lab.example.org", "anna.lab.example.org", "vpn.example.org,*.lab.example.org", "*.lab.example.org",
		"vpn.example.org,*.example.org", "*.example.org", "vpn.example.org,%any", "vpn.example.org", "%any"}
	own, anna := identity(t, "vpn.example.org"), identity(t, "anna.lab.example.org")
	for i := range closest {
		rest := made(t, secret, closest[i:])
		for n := range 2 * len(rest) {
			psk, ok := NewSet(nil, rotated(rest, n)).Secret(own, anna)
			if !ok || string(psk) != closest[i] {
				t.Fatalf("of %v it is %q", closest[i:], psk)
			}
		}
	}
	if psk, ok := NewSet(nil, made(t, secret, []string{"vpn2.example.org,anna.lab.example.org", "vpn2.example.org,%any", "ben.lab.example.org", "vpn2.example.org", "vpn2.example.org,vpn.example.org"})).Secret(own, anna); ok {
		t.Errorf("others' secrets serve: %q", psk)
	}
	// A peer whom an initiator cannot know yet.
	set := NewSet(nil, made(t, secret, []string{"*.example.org", "vpn.example.org", "%any"}))
	if psk, _ := set.Secret(own, ID{}); string(psk) != "vpn.example.org" {
		t.Errorf("with an unknown peer it is %q", psk)
	}
	shared, ok := set.Shared(own, anna)
	if got := fmt.Sprint(shared); !ok || got != "[secret of *.example.org]" {
		t.Errorf("shared is %s", got)
	}
}
