package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// book is a directory in a test, with a clock that moves by a second with each
// question, and the SAs that were told something.
type book struct {
	*Directory
	t    *testing.T
	now  mono.Time
	conn *policy.Connection
}

func newBook(t *testing.T, pools ...Pool) *book {
	t.Helper()
	d, err := New(pools)
	if err != nil {
		t.Fatal(err)
	}
	return &book{d, t, mono.Time(time.Hour), &policy.Connection{LocalID: identity("vpn.example.org"), RemoteID: policy.Anybody,
		MaxSAs: 8, MaxLeases: 4, Pools: []string{"office"}}}
}

func identity(s string) policy.ID {
	id, err := policy.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

func office(prefixes ...string) Pool {
	p := Pool{Name: "office", DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("2001:db8::53")}}
	for _, s := range prefixes {
		p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(s))
	}
	return p
}

var (
	anyIPv4 = []netip.Addr{netip.IPv4Unspecified()}
	here    = netip.MustParseAddrPort("203.0.113.9:4500")
	there   = netip.MustParseAddrPort("203.0.113.10:4500")
)

// comes is the request of a peer's SA, whose handshake has begun just now. A change
// may say who it is.
func (b *book) comes(spi uint64, who string, change ...func(*Request)) Request {
	b.now = b.now.Add(time.Second)
	r := Request{SPI: spi, Conn: b.conn, From: netip.AddrPortFrom(here.Addr(), uint16(spi)), Began: b.now, Want: anyIPv4}
	if who != "" {
		r.Peer = identity(who)
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

func from(a netip.AddrPort) func(*Request) { return func(r *Request) { r.From = a } }
func contact(r *Request)                   { r.InitialContact = true }
func calledBy(ours bool) func(*Request)    { return func(r *Request) { r.Ours = ours } }
func began(at mono.Time) func(*Request)    { return func(r *Request) { r.Began = at } }
func wants(a ...string) func(*Request) {
	return func(r *Request) {
		r.Want = nil
		for _, s := range a {
			r.Want = append(r.Want, netip.MustParseAddr(s))
		}
	}
}

// admit asks for an admission a second later.
func (b *book) admit(r Request) []Order {
	b.now = b.now.Add(time.Second)
	return b.Admit(b.now, r)
}

// told writes orders as a person does.
func told(orders []Order) string {
	var out []string
	for _, o := range orders {
		text := fmt.Sprintf("%d %s", o.SPI, [...]string{"answer", "replace", "displace", "uncross", "probe"}[o.Do])
		if o.Do == Answer {
			text = fmt.Sprintf("%d %v %v", o.SPI, ruleNames[o.Rule], o.Addrs)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

var ruleNames = map[policy.Rule]string{policy.Accepted: "gets", policy.NotUnique: "is not unique", policy.TooManySAs: "has its share",
	policy.NoAddress: "finds none", policy.TooManyLeases: "has its leases"}

// want compares what SAs are told.
func (b *book) want(orders []Order, want string) {
	b.t.Helper()
	if got := told(orders); got != want {
		b.t.Errorf("told: %s\nwant: %s", got, want)
	}
}

// wantEmpty ends what is left, and wants nothing to stay.
func (b *book) wantEmpty() {
	b.t.Helper()
	for spi := range b.claims {
		b.Leave(spi)
	}
	if len(b.pairs)+len(b.claims)+len(b.calls) > 0 || b.Leases()["office"] != 0 {
		b.t.Errorf("left: %d pairs, %d claims, %d calls, %v leases", len(b.pairs), len(b.claims), len(b.calls), b.Leases())
	}
}

// TestUnique: what each kind of uniqueness does when the same pair comes again.
func TestUnique(t *testing.T) {
	for _, c := range []struct {
		name          string
		unique        policy.Unique
		second, third string
	}{
		{"no", policy.UniqueNo, "2 gets [10.99.0.2]", "1 replace; 2 replace"},
		{"never", policy.UniqueNever, "2 gets [10.99.0.2]", "3 gets [10.99.0.3]"},
		{"keep", policy.UniqueKeep, "1 probe; 2 is not unique []", "1 replace"},
		{"replace", policy.UniqueReplace, "1 displace", "2 replace"},
	} {
		b := newBook(t, office("10.99.0.0/24"))
		b.conn.Unique = c.unique
		b.want(b.admit(b.comes(1, "anna@example.org")), "1 gets [10.99.0.1]")
		b.want(b.admit(b.comes(2, "anna@example.org")), c.second)
		if c.unique == policy.UniqueReplace {
			b.want(b.Leave(1), "2 gets [10.99.0.1]")
		}
		b.want(b.admit(b.comes(9, "bert@example.org")), map[bool]string{true: "9 gets [10.99.0.2]", false: "9 gets [10.99.0.3]"}[c.unique >= policy.UniqueKeep])
		third := c.third
		if c.unique == policy.UniqueNever {
			third = "3 gets [10.99.0.4]"
		}
		b.want(b.admit(b.comes(3, "anna@example.org", contact)), third)
		b.wantEmpty()
	}
}

// TestKeepAtOnce: of two handshakes that the peer has under way at once the first to
// prove itself stays.
func TestKeepAtOnce(t *testing.T) {
	b := newBook(t, office("10.99.0.0/24"))
	b.conn.Unique = policy.UniqueKeep
	first, second := b.comes(1, "anna@example.org"), b.comes(2, "anna@example.org")
	b.want(b.admit(second), "2 gets [10.99.0.1]")
	b.want(b.admit(first), "2 probe; 1 is not unique []")
	b.wantEmpty()
}

// TestSince: what was up before a handshake began gives way to it, or keeps it out, and
// what came up in the same instant or later is another's.
func TestSince(t *testing.T) {
	for _, c := range []struct {
		unique policy.Unique
		ours   bool
		after  time.Duration // the handshake begins so long after the other SA was admitted
		want   string
	}{
		{policy.UniqueNo, false, 1, "1 replace"},
		{policy.UniqueNo, false, 0, "2 gets []"},
		{policy.UniqueNo, true, 1, "1 replace"},
		{policy.UniqueNo, true, 0, "2 gets []"},
		{policy.UniqueKeep, true, 1, "1 replace"}, // he has forgotten it
		{policy.UniqueReplace, true, 0, "2 gets []"},
		{policy.UniqueReplace, false, 0, "1 displace"},
	} {
		b := newBook(t)
		b.conn.Unique = c.unique
		b.admit(b.comes(1, "anna@example.org", calledBy(c.ours), wants()))
		b.want(b.admit(b.comes(2, "anna@example.org", began(b.now.Add(c.after)), contact, wants())), c.want)
		b.wantEmpty()
	}
	for _, c := range []struct {
		unique policy.Unique
		after  time.Duration
		want   string
	}{
		{policy.UniqueKeep, 1, "1 probe; 2 is not unique []"},
		{policy.UniqueKeep, 0, "2 gets []"},
		{policy.UniqueReplace, 1, "1 displace"},
	} {
		b := newBook(t)
		b.conn.Unique = c.unique
		b.admit(b.comes(1, "anna@example.org", calledBy(true), wants()))
		b.want(b.admit(b.comes(2, "anna@example.org", began(b.now.Add(c.after)), wants())), c.want)
		b.wantEmpty()
	}
}

// TestOtherPairs: the same peer with another of our identities is another pair, and so
// is another peer.
func TestOtherPairs(t *testing.T) {
	b := newBook(t, office("10.99.0.0/24"))
	b.admit(b.comes(1, "anna@example.org"))
	other := *b.conn
	other.LocalID = identity("vpn2.example.org")
	b.want(b.admit(b.comes(2, "anna@example.org", contact, func(r *Request) { r.Conn = &other })), "2 gets [10.99.0.2]")
	b.want(b.admit(b.comes(3, "bert@example.org", contact)), "3 gets [10.99.0.3]")
	b.wantEmpty()
}

// TestContactOfYesterday: INITIAL_CONTACT ends what was up before the handshake began
// which brings it, and nothing that has come up since.
func TestContactOfYesterday(t *testing.T) {
	b := newBook(t, office("10.99.0.0/24"))
	b.admit(b.comes(1, "anna@example.org"))
	slow := b.comes(2, "anna@example.org", contact)
	b.admit(b.comes(3, "anna@example.org"))
	b.want(b.admit(slow), "1 replace")
	b.want(b.Leave(1), "2 gets [10.99.0.1]")
	b.admit(b.comes(4, "anna@example.org", contact))
	b.want(b.Leave(3), "")
	b.want(b.Leave(2), "4 gets [10.99.0.1]")
	b.wantEmpty()
}

// TestContactAfterContact: quicker than the old SAs leave, the last one counts, and is
// answered when all before it have left.
func TestContactAfterContact(t *testing.T) {
	b := newBook(t, office("10.99.0.0/30"))
	b.want(b.admit(b.comes(1, "anna@example.org", contact)), "1 gets [10.99.0.1]")
	b.want(b.admit(b.comes(2, "anna@example.org", contact)), "1 replace")
	b.want(b.admit(b.comes(3, "anna@example.org", contact)), "2 replace")
	b.want(b.Leave(2), "")
	b.want(b.Leave(1), "2 gets [10.99.0.1]; 3 gets [10.99.0.1]")
	if n := b.Leases()["office"]; n != 1 {
		t.Errorf("%d leases", n)
	}
	b.want(b.admit(b.comes(4, "bert@example.org")), "4 gets [10.99.0.2]")
	b.want(b.Leave(3), "")
	b.want(b.Leave(3), "")
	b.wantEmpty()
}

// TestShare: who has his share of SAs or addresses gets no more, whoever leaves out
// INITIAL_CONTACT; what he has is asked after, not too often; others are not touched.
func TestShare(t *testing.T) {
	b := newBook(t, office("10.99.0.0/29"))
	b.conn.MaxSAs, b.conn.MaxLeases = 3, 2
	b.want(b.admit(b.comes(1, "anna@example.org")), "1 gets [10.99.0.1]")
	b.want(b.admit(b.comes(2, "anna@example.org")), "2 gets [10.99.0.2]")
	b.want(b.admit(b.comes(3, "anna@example.org")), "1 probe; 2 probe; 3 has its leases []")
	b.want(b.admit(b.comes(4, "anna@example.org")), "4 has its share []")
	r := b.comes(4, "anna@example.org")
	b.want(b.Admit(b.pairs[PairOf(b.conn, r.Peer, r.From.Addr())].probedAt.Add(probePause-1), r), "4 has its share []")
	b.want(b.Admit(b.pairs[PairOf(b.conn, r.Peer, r.From.Addr())].probedAt.Add(probePause), r), "1 probe; 2 probe; 3 probe; 4 has its share []")
	b.want(b.admit(b.comes(5, "bert@example.org")), "5 gets [10.99.0.3]")
	b.want(b.admit(b.comes(6, "anna@example.org", calledBy(true), wants())), "6 gets []")
	b.Leave(2)
	b.Leave(3)
	b.Leave(6)
	b.want(b.admit(b.comes(7, "anna@example.org")), "7 gets [10.99.0.2]")
	b.wantEmpty()
}

// TestMakeBeforeBreak: the same peer at the same endpoint keeps his address, whichever
// of the two SAs ends first; at another endpoint he gets another.
func TestMakeBeforeBreak(t *testing.T) {
	for _, first := range []uint64{1, 2} {
		for _, want := range []string{"0.0.0.0", "10.99.0.1", "10.99.0.7"} {
			b := newBook(t, office("10.99.0.0/24"))
			b.conn.MaxLeases = 2
			b.want(b.admit(b.comes(1, "anna@example.org", from(here))), "1 gets [10.99.0.1]")
			b.want(b.admit(b.comes(2, "anna@example.org", from(here), wants(want))), "2 gets [10.99.0.1]")
			b.Leave(first)
			if b.Leases()["office"] != 1 {
				t.Errorf("%d left first: its address is free", first)
			}
			b.want(b.admit(b.comes(3, "bert@example.org", from(here), wants("10.99.0.1"))), "3 gets [10.99.0.2]")
			b.want(b.admit(b.comes(4, "anna@example.org", from(there), wants("10.99.0.1"))), "4 gets [10.99.0.3]")
			b.Moved(4, here)
			b.want(b.admit(b.comes(5, "anna@example.org", from(here))), "5 gets [10.99.0.3]")
			b.wantEmpty()
		}
	}
}

// TestFollowsTheEndpoint: the peer's NAT gives him another port, and he comes again
// from there.
func TestFollowsTheEndpoint(t *testing.T) {
	b := newBook(t, office("10.99.0.0/24"))
	b.admit(b.comes(1, "anna@example.org", from(here)))
	b.Moved(1, there)
	b.Moved(7, there)
	b.want(b.admit(b.comes(2, "anna@example.org", from(there))), "2 gets [10.99.0.1]")
	b.want(b.admit(b.comes(3, "anna@example.org", from(here))), "3 gets [10.99.0.2]")
	b.wantEmpty()
}

// TestRemembered: after the end of all, each device has its address again if it asks
// for it, in whatever order they come; who asks for none has the first.
func TestRemembered(t *testing.T) {
	b := newBook(t, office("10.99.0.0/24"))
	for spi := range uint64(3) {
		b.admit(b.comes(spi+1, "anna@example.org"))
	}
	for spi := range uint64(3) {
		b.Leave(spi + 1)
	}
	b.want(b.admit(b.comes(4, "bert@example.org")), "4 gets [10.99.0.4]")
	b.want(b.admit(b.comes(5, "anna@example.org", wants("10.99.0.3"))), "5 gets [10.99.0.3]")
	b.want(b.admit(b.comes(6, "anna@example.org", wants("10.99.0.1"))), "6 gets [10.99.0.1]")
	b.want(b.admit(b.comes(7, "anna@example.org")), "7 gets [10.99.0.2]")
	b.Leave(5)
	b.Leave(6)
	b.want(b.admit(b.comes(8, "anna@example.org", wants("10.99.0.3"))), "8 gets [10.99.0.3]")
	b.want(b.admit(b.comes(9, "anna@example.org", wants("10.99.0.2"))), "9 gets [10.99.0.1]")
	b.wantEmpty()
}

// TestStrangersOfOneAddress: Windows says its private address, and many networks have
// the same, also behind one carrier's NAT.
func TestStrangersOfOneAddress(t *testing.T) {
	b := newBook(t, office("10.99.0.0/24"))
	for _, a := range []string{"192.168.1.5", "100.64.3.7", "169.254.9.9", "192.0.0.2", "0.0.0.0", "::", "fd00::5"} {
		who := func(r *Request) {
			a, kind := netip.MustParseAddr(a), wire.IDIPv4
			if a.Is6() {
				kind = wire.IDIPv6
			}
			r.Peer, _ = policy.FromPayload(&wire.ID{Kind: kind, Data: a.AsSlice()})
		}
		b.want(b.admit(b.comes(1, "", who, from(here), contact, wants())), "1 gets []")
		b.want(b.admit(b.comes(2, "", who, from(there), contact, wants())), "2 gets []")
		b.want(b.admit(b.comes(4, "", who, from(netip.AddrPortFrom(here.Addr(), 4501)), contact, wants())), "4 gets []")
		b.want(b.admit(b.comes(3, "", who, from(here), contact, wants())), "1 replace")
		b.Leave(4)
		b.Leave(1)
		b.Leave(2)
		b.Leave(3)
	}
	b.conn.MaxSAs, b.conn.MaxLeases = 1, 1
	b.want(b.admit(b.comes(1, "192.168.1.5", from(here))), "1 gets [10.99.0.1]")
	b.want(b.admit(b.comes(2, "192.168.1.5", from(there))), "2 gets [10.99.0.2]")
	b.Leave(1)
	b.Leave(2)
	b.conn.MaxSAs = 8
	b.admit(b.comes(1, "198.51.100.77", from(here)))
	b.want(b.admit(b.comes(2, "198.51.100.77", from(there), contact)), "1 replace")
	b.Leave(1)
	b.Leave(2)
	b.conn.RemoteID = policy.Only(identity("192.168.1.5"))
	b.admit(b.comes(3, "192.168.1.5", from(here)))
	b.want(b.admit(b.comes(4, "192.168.1.5", from(there), contact)), "3 replace")
	b.wantEmpty()
}

// TestStrangersAreNotOneAnother: of strangers with one address behind one NAT none is
// refused for another, or displaces him.
func TestStrangersAreNotOneAnother(t *testing.T) {
	b := newBook(t, office("10.99.0.0/24"))
	other := netip.AddrPortFrom(here.Addr(), 4501)
	b.conn.Unique = policy.UniqueKeep
	b.want(b.admit(b.comes(1, "192.168.1.5", from(here), wants())), "1 gets []")
	b.want(b.admit(b.comes(2, "192.168.1.5", from(other), wants())), "2 gets []")
	b.want(b.admit(b.comes(3, "192.168.1.5", from(here), wants())), "1 probe; 2 probe; 3 is not unique []")
	b.conn.Unique = policy.UniqueReplace
	b.want(b.admit(b.comes(4, "192.168.1.5", from(other), wants())), "2 displace")
	b.Leave(2)
	b.wantEmpty()
}

// TestReturnedLeases: an SA that has its addresses without a use for them gives them
// back, and stays. Whoever shares one keeps it.
func TestReturnedLeases(t *testing.T) {
	b := newBook(t, office("10.99.0.0/31"))
	b.conn.MaxLeases = 1
	b.want(b.admit(b.comes(1, "anna@example.org", from(here))), "1 gets [10.99.0.0]")
	b.want(b.admit(b.comes(2, "anna@example.org", from(here))), "2 gets [10.99.0.0]")
	b.ReturnLeases(2)
	b.ReturnLeases(2)
	if n := b.Leases()["office"]; n != 1 {
		t.Errorf("%d leases, when one of two who share it has returned it", n)
	}
	b.want(b.admit(b.comes(3, "anna@example.org", from(there))), "1 probe; 2 probe; 3 has its leases []")
	b.ReturnLeases(1)
	b.ReturnLeases(7)
	if n := b.Leases()["office"]; n != 0 {
		t.Errorf("%d leases", n)
	}
	b.want(b.admit(b.comes(4, "anna@example.org", from(there))), "4 gets [10.99.0.0]")
	b.want(b.admit(b.comes(5, "bert@example.org", from(there))), "5 gets [10.99.0.1]")
	if n := b.Leases()["office"]; n != 2 {
		t.Errorf("%d leases", n)
	}
	b.Leave(1)
	if n := b.Leases()["office"]; n != 2 {
		t.Errorf("%d leases, when one without has left", n)
	}
	// One that was told to go gives its address to the one in its place, and no longer.
	b.conn.Unique = policy.UniqueReplace
	b.want(b.admit(b.comes(6, "bert@example.org", from(here))), "5 displace")
	b.ReturnLeases(5)
	b.want(b.Leave(5), "6 gets [10.99.0.1]")
	b.wantEmpty()
	// So it is where another one shares it that stays.
	b.conn.Unique = policy.UniqueNo
	late := b.comes(3, "anna@example.org", from(there), contact)
	late.Began = b.now.Add(3 * time.Second)
	b.admit(b.comes(1, "anna@example.org", from(here)))
	b.now = late.Began
	b.admit(b.comes(2, "anna@example.org", from(here)))
	b.want(b.admit(late), "1 replace; 2 probe")
	b.ReturnLeases(1)
	b.want(b.Leave(1), "3 has its leases []")
	b.want(b.admit(b.comes(4, "anna@example.org", from(there), wants())), "4 gets []")
	b.want(b.admit(b.comes(5, "anna@example.org", from(there))), "5 has its leases []")
	b.wantEmpty()
}

// TestCrossing: of two calls at once the one begun by the lower identity stays, and the
// side that has begun the other ends it, when both are up.
func TestCrossing(t *testing.T) {
	for _, c := range []struct {
		peer string
		want string
	}{{"a.example.org", "1 uncross"}, {"z.example.org", ""}, {"vpn.example.org", ""}} {
		for _, unique := range []policy.Unique{policy.UniqueNo, policy.UniqueNever, policy.UniqueKeep, policy.UniqueReplace} {
			for _, oursFirst := range []bool{true, false} {
				b := newBook(t)
				b.conn.RemoteID, b.conn.Unique = policy.Only(identity(c.peer)), unique
				ours, his := b.comes(1, c.peer, calledBy(true), wants()), b.comes(2, c.peer, wants())
				if oursFirst {
					his.Began = ours.Began
					b.want(b.admit(ours), "1 gets []")
					b.want(b.admit(his), "2 gets []")
				} else {
					b.want(b.admit(his), "2 gets []")
					b.want(b.admit(ours), "1 gets []")
				}
				b.want(b.Carries(1, true), "")
				b.want(b.Carries(2, true), c.want)
				b.want(b.Carries(2, false), "")
				b.want(b.Carries(1, true), "")
				b.want(b.Carries(3, true), "")
				b.wantEmpty()
			}
		}
	}
}

// TestCrossingTheOtherWay: the peer's call is up first; and what two connections are for
// is no crossing.
func TestCrossingTheOtherWay(t *testing.T) {
	b := newBook(t)
	b.conn.RemoteID = policy.Only(identity("a.example.org"))
	other := *b.conn
	b.admit(b.comes(1, "a.example.org", calledBy(true), wants()))
	b.admit(b.comes(2, "a.example.org", wants(), func(r *Request) { r.Conn = &other }))
	b.want(b.Carries(2, true), "")
	b.want(b.Carries(1, true), "")
	b.admit(b.comes(3, "a.example.org", wants()))
	b.want(b.Carries(3, true), "1 uncross")
	b.wantEmpty()
}

// TestAlone: INITIAL_CONTACT is true only while nothing else is there or under way.
func TestAlone(t *testing.T) {
	b := newBook(t)
	pair := PairOf(b.conn, identity("anna@example.org"), netip.Addr{})
	other := PairOf(b.conn, identity("bert@example.org"), netip.Addr{})
	b.Calls(pair, 1)
	if !b.Alone(pair) || !b.Alone(other) {
		t.Error("a handshake is not alone with itself")
	}
	b.Calls(pair, 1)
	if b.Alone(pair) || !b.Alone(other) {
		t.Error("two handshakes, and each is alone")
	}
	b.Calls(pair, -1)
	b.admit(b.comes(1, "anna@example.org", wants()))
	if b.Alone(pair) || !b.Alone(other) {
		t.Error("an SA is up, and a handshake is alone")
	}
	b.Leave(1)
	if !b.Alone(pair) {
		t.Error("what has gone is still there")
	}
	b.Calls(pair, -1)
	b.wantEmpty()
}

func TestLeases(t *testing.T) {
	small := Pool{Name: "small", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.98.0.1/32")}}
	b := newBook(t, small, office("10.99.0.0/28", "2001:db8:1::/64"))
	b.conn.Pools = []string{"small", "office"}
	a := b.admit(b.comes(1, "anna@example.org", wants("0.0.0.0", "::")))[0]
	if fmt.Sprint(a.Addrs, a.DNS, a.Rule) != "[10.98.0.1 2001:db8:1::1] [2001:db8::53] accepted" {
		t.Errorf("%v %v %v", a.Addrs, a.DNS, a.Rule)
	}
	a = b.admit(b.comes(2, "bert@example.org"))[0]
	if fmt.Sprint(a.Addrs, a.DNS, a.Rule) != "[10.99.0.1] [10.0.0.53] accepted" {
		t.Errorf("%v %v %v", a.Addrs, a.DNS, a.Rule)
	}
	b.conn.Pools = b.conn.Pools[:1]
	b.want(b.admit(b.comes(3, "cleo@example.org")), "3 finds none []")
	b.want(b.admit(b.comes(4, "dora@example.org", wants())), "4 gets []")
	b.want(b.admit(b.comes(5, "emil@example.org", wants("0.0.0.0", "::"))), "5 finds none []")
	if _, err := New([]Pool{office("10.0.0.0/8", "10.0.0.0/16")}); err == nil || !strings.Contains(err.Error(), "pool office") {
		t.Errorf("a pool that overlaps itself: %v", err)
	}
	b.wantEmpty()
}

// TestFamilies: each family has a share of its own, and whoever gets one of two that he
// asks for has got something.
func TestFamilies(t *testing.T) {
	b := newBook(t, office("10.99.0.0/28", "2001:db8:1::/64"), Pool{Name: "four", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.98.0.0/28")}})
	b.conn.MaxLeases = 1
	b.want(b.admit(b.comes(1, "anna@example.org", wants("0.0.0.0", "::"))), "1 gets [10.99.0.1 2001:db8:1::1]")
	b.want(b.admit(b.comes(2, "bert@example.org", wants("::"))), "2 gets [2001:db8:1::2]")
	b.want(b.admit(b.comes(3, "bert@example.org", wants("0.0.0.0"))), "3 gets [10.99.0.2]")
	b.conn.Pools = []string{"four"}
	b.want(b.admit(b.comes(4, "cleo@example.org", wants("0.0.0.0", "::"))), "4 gets [10.98.0.1]")
	b.wantEmpty()
}

// TestBeside: who had no address at an endpoint, or one of another pool, shares none.
func TestBeside(t *testing.T) {
	b := newBook(t, office("10.99.0.0/28"), Pool{Name: "other", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.98.0.0/28")}})
	b.admit(b.comes(1, "anna@example.org", from(here), wants()))
	b.want(b.admit(b.comes(2, "anna@example.org", from(here))), "2 gets [10.99.0.1]")
	other := *b.conn
	other.Pools = []string{"other"}
	b.want(b.admit(b.comes(3, "anna@example.org", from(here), func(r *Request) { r.Conn = &other })), "3 gets [10.98.0.1]")
	b.want(b.admit(b.comes(4, "anna@example.org", from(here))), "4 gets [10.99.0.1]")
	b.wantEmpty()
}

// TestManyRemembered: of very many former addresses of a pair the first ones are
// compared with the one that is asked for.
func TestManyRemembered(t *testing.T) {
	for _, c := range []struct{ asks, want string }{{"10.99.0.16", "10.99.0.16"}, {"10.99.0.17", "10.99.0.1"}} {
		b := newBook(t, office("10.99.0.0/24"))
		b.conn.MaxSAs, b.conn.MaxLeases = 40, 40
		for spi := range uint64(20) {
			b.admit(b.comes(spi+1, "anna@example.org"))
		}
		for spi := range uint64(20) {
			b.Leave(spi + 1)
		}
		b.want(b.admit(b.comes(30, "anna@example.org", wants(c.asks))), "30 gets ["+c.want+"]")
		b.wantEmpty()
	}
}

// TestManyDevices: an identity that thousands share is served in a time that stays
// small, and each has an address of its own.
func TestManyDevices(t *testing.T) {
	const many = 5_000
	b := newBook(t, office("10.96.0.0/14"))
	b.conn.MaxSAs, b.conn.MaxLeases = many, many
	seen := map[netip.Addr]bool{}
	for i := range uint64(many) {
		a := b.Admit(b.now, Request{SPI: i + 1, Conn: b.conn, Peer: identity("all@example.org"), From: netip.AddrPortFrom(here.Addr().Next(), uint16(i)), Began: b.now, Want: anyIPv4})
		if len(a) != 1 || len(a[0].Addrs) != 1 || seen[a[0].Addrs[0]] {
			t.Fatalf("device %d: %+v", i, a)
		}
		seen[a[0].Addrs[0]] = true
	}
	b.want(slices.Clip(b.admit(b.comes(many+1, "all@example.org", from(there)))[many:]), fmt.Sprintf("%d has its share []", many+1))
	for i := range uint64(many) {
		b.Leave(i + 1)
	}
	b.wantEmpty()
}
