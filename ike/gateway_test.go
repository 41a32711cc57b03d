package ike

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// spis are the parts of a line that no test can know.
var spis = regexp.MustCompile(`\b([0-9a-f]{16}|[0-9a-f]{8})\b`)

// logged are the lines since the last call, with their SPIs blotted out.
func (e *end) logged() string {
	synctest.Wait()
	e.link.mu.Lock()
	defer e.link.mu.Unlock()
	s := spis.ReplaceAllString(e.logs.String(), "SPI")
	e.logs.Reset()
	return s
}

func TestTunnel(t *testing.T) {
	inBubble(t, func(t *testing.T, l *link) {
		gateway, client := l.end(t, gatewayConfig()), l.end(t, clientConfig())
		ctx := context.Background()
		if err := client.gateway.Initiate(ctx, "home"); err != nil {
			t.Fatal(err)
		}
		if err := client.gateway.Initiate(ctx, "home"); err != nil {
			t.Errorf("while it is up: %v", err)
		}
		time.Sleep(time.Minute)
		const established = `level=INFO msg=established connection=roadwarriors peer=anna@example.org remote=10.7.0.2:500 spi=SPI role=responder suite=aes256gcm16-prfsha256-x25519
level=INFO msg="child up" connection=roadwarriors peer=anna@example.org remote=10.7.0.2:500 spi=SPI spi_in=SPI spi_out=SPI local_ts=[10.0.0.0/8] remote_ts=[10.99.0.1/32] suite=aes256gcm16-esn
level=DEBUG msg="probe sent" connection=roadwarriors peer=anna@example.org remote=10.7.0.2:500 spi=SPI
level=DEBUG msg="probe answered" connection=roadwarriors peer=anna@example.org remote=10.7.0.2:500 spi=SPI
`
		if got := gateway.logged(); got != established {
			t.Errorf("the gateway has logged\n%s", got)
		}
		if got := client.logged(); !strings.HasPrefix(got, `level=INFO msg=connecting connection=home peer="" remote=198.51.100.1:500 spi=SPI local=10.7.0.2:500`) ||
			!strings.Contains(got, "virtual_ips=[10.99.0.1]") {
			t.Errorf("the client has logged\n%s", got)
		}
		sas, err := gateway.gateway.SAs(ctx)
		if err != nil || len(sas) != 1 || sas[0].Identity != "anna@example.org" || sas[0].RemoteTS[0] != "10.99.0.1/32" {
			t.Errorf("%+v %v", sas, err)
		}
		st, err := gateway.gateway.Status(ctx)
		if err != nil || st.Up != 1 || st.UpMS != 60004 || st.Leases["office"] != 1 || st.Counters["established"] != 1 {
			t.Errorf("%+v %v", st, err)
		}
		if n, err := gateway.gateway.Probe(ctx, "anna@example.org"); n != 1 || err != nil {
			t.Errorf("probed %d, %v", n, err)
		}
		if n, err := gateway.gateway.Terminate(ctx, "nobody"); n != 0 || err != nil {
			t.Errorf("terminated %d, %v", n, err)
		}
		client.stop()
		time.Sleep(time.Second)
		if got := gateway.logged(); !strings.HasSuffix(got, "msg=\"deleted by peer\" connection=roadwarriors peer=anna@example.org remote=10.7.0.2:500 spi=SPI\n") {
			t.Errorf("at the end\n%s", got)
		}
		gateway.stop()
		if gateway.held != 0 || client.held != 0 {
			t.Errorf("held at the end: %d and %d", gateway.held, client.held)
		}
		if _, err := gateway.gateway.Peers(ctx); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestDrift: a hint that packets come from elsewhere is told with that place.
func TestDrift(t *testing.T) {
	inBubble(t, func(t *testing.T, l *link) {
		one := gatewayConfig()
		one.Shards = 1 // its edges would have every SPI in the first
		gateway, client := l.end(t, one), l.end(t, clientConfig())
		if err := client.gateway.Initiate(context.Background(), "home"); err != nil {
			t.Fatal(err)
		}
		sas, err := gateway.gateway.SAs(context.Background())
		if err != nil || len(sas) != 1 {
			t.Fatalf("%+v %v", sas, err)
		}
		var spi uint32
		if _, err := fmt.Sscanf(sas[0].InSPI, "%08x", &spi); err != nil {
			t.Fatal(err)
		}
		gateway.logged()
		gateway.gateway.Drifted(spi, netip.MustParseAddrPort("203.0.113.9:4500"))
		time.Sleep(time.Second)
		const want = `level=DEBUG msg=drift connection=roadwarriors peer=anna@example.org remote=10.7.0.2:500 spi=SPI from=203.0.113.9:4500
level=DEBUG msg="probe sent" connection=roadwarriors peer=anna@example.org remote=10.7.0.2:500 spi=SPI
level=DEBUG msg="probe answered" connection=roadwarriors peer=anna@example.org remote=10.7.0.2:500 spi=SPI
`
		if got := gateway.logged(); got != want {
			t.Errorf("logged\n%s", got)
		}
		gateway.stop()
		told := 0
		for ev := range gateway.events {
			text, err := json.Marshal(ev)
			place := strings.Contains(string(text), `"remote":"10.7.0.2:500","from":"203.0.113.9:4500",`)
			if err != nil || place != (ev.Kind == "drift") || strings.Contains(string(text), `"from"`) != place {
				t.Errorf("%s %v", text, err)
			}
			if place {
				told++
			}
		}
		if told != 1 {
			t.Errorf("it was told %d times", told)
		}
	})
}

func TestEvents(t *testing.T) {
	inBubble(t, func(t *testing.T, l *link) {
		gateway, client := l.end(t, gatewayConfig()), l.end(t, clientConfig())
		if err := client.gateway.Initiate(context.Background(), "home"); err != nil {
			t.Fatal(err)
		}
		client.stop()
		var kinds []string
		for ev := range client.events {
			kinds = append(kinds, ev.Kind)
		}
		if want := []string{"connecting", "established", "child_up", "closed"}; !slices.Equal(kinds, want) {
			t.Errorf("events %q, want %q", kinds, want)
		}
		gateway.stop()
		var last Event
		for ev := range gateway.events {
			if ev.Shard != last.Shard && last.Seq != 0 || ev.Seq != last.Seq+1 {
				t.Errorf("event %d of shard %d follows %d of %d", ev.Seq, ev.Shard, last.Seq, last.Shard)
			}
			if last = ev; ev.Kind == "child_up" {
				ev.Time, ev.Shard, ev.SPI, ev.PeerSPI, ev.Child.InSPI, ev.Child.OutSPI = time.Time{}, 0, "", "", "", ""
				got, err := json.Marshal(ev)
				const want = `{"time":"0001-01-01T00:00:00Z","event":"child_up","shard":0,"seq":2,"connection":"roadwarriors",` +
					`"peer":"anna@example.org","role":"responder","local":"198.51.100.1:500","remote":"10.7.0.2:500",` +
					`"local_natted":false,"peer_natted":false,"spi":"","suite":"aes256gcm16-prfsha256-x25519",` +
					`"child":{"spi_in":"","spi_out":"","suite":"aes256gcm16-esn","local_ts":["10.0.0.0/8"],"remote_ts":["10.99.0.1/32"]}}`
				if err != nil || string(got) != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
		}
		if last.Reason != "deleted by peer" {
			t.Errorf("the last event: %+v", last)
		}
		// Who comes too late hears nothing, and does not wait for it.
		if _, more := <-gateway.gateway.Events(context.Background()); more {
			t.Error("an event after the end")
		}
	})
}

// A listener that does not listen misses events, and holds nobody up; one that
// goes is forgotten.
func TestListeners(t *testing.T) {
	inBubble(t, func(t *testing.T, l *link) {
		client := l.end(t, clientConfig())
		ctx, cancel := context.WithCancel(context.Background())
		going := client.gateway.Events(ctx)
		for range subscriberBuffer {
			// Nobody is there: a handshake of six tries and its end.
			_, _ = client.gateway.Terminate(context.Background(), "*")
			go func() { _ = client.gateway.Initiate(context.Background(), "home") }() // ends with its SA
			time.Sleep(time.Minute)
		}
		st, err := client.gateway.Status(context.Background())
		if err != nil || st.EventsDropped == 0 {
			t.Errorf("%+v %v", st, err)
		}
		cancel()
		synctest.Wait()
		n := 0
		for range going {
			n++
		}
		if n != subscriberBuffer {
			t.Errorf("%d events were kept", n)
		}
	})
}

// testHub is a hub without shards, at a time that stands still.
func testHub(h slog.Handler) *hub {
	return newHub(slog.New(h), func() mono.Time { return 1 }, policy.NewSet(nil, nil), func(Refusal) string { return "" })
}

// What the hub has no room for is counted, and nobody waits for it.
func TestHubFull(t *testing.T) {
	h := testHub(slog.DiscardHandler)
	for range hubBuffer + 3 {
		h.sink(shard.Event{})
	}
	if n := h.dropped.Load(); n != 3 {
		t.Errorf("%d events were dropped", n)
	}
}

// What fails here for want of a record, or of room, is an error once in a while for
// each who comes, since anybody may come as often as he likes; a panic is one always.
func TestFailuresLogLittle(t *testing.T) {
	var out bytes.Buffer
	h := testHub(slog.NewTextHandler(&out, nil))
	at := func(kind sa.EventKind, reason sa.Reason, err error) shard.Event {
		return shard.Event{At: mono.Time(time.Hour), Kind: kind, Reason: reason, Err: err, Path: sa.Path{Remote: netip.MustParseAddrPort("203.0.113.9:500")}}
	}
	denied := at(sa.Established, 0, errors.New("the plane is full"))
	denied.Notify = wire.TemporaryFailure
	for range 30 {
		h.hand(at(sa.Closed, sa.LocalFailure, errors.New("storing the record: no space left")))
		h.hand(denied)
	}
	for range 3 {
		h.hand(at(sa.Closed, sa.LocalFailure, &shard.PanicError{Value: "a bug"}))
		h.hand(at(sa.Closed, sa.AuthFailed, nil)) // whose refusal was told
	}
	h.end()
	got := out.String()
	if strings.Count(got, "level=ERROR") != 4 || strings.Count(got, "no space left") != 1 || strings.Count(got, "a bug") != 3 ||
		strings.Count(got, `level=WARN msg="refused 203.0.113.9: local failure: 59 more in the last minute"`) != 1 || strings.Count(got, "\n") != 5 {
		t.Errorf("logged:\n%s", got)
	}
}

// A wrong key is refused, and no key is logged.
func TestNoKeyIsLogged(t *testing.T) {
	inBubble(t, func(t *testing.T, l *link) {
		c := gatewayConfig()
		c.Secrets = []Secret{{ID: "anna@example.org", PSK: []byte("another than the client's, long enough")}}
		gateway, client := l.end(t, c), l.end(t, clientConfig())
		if err := client.gateway.Initiate(context.Background(), "home"); err == nil {
			t.Fatal("a wrong key is accepted")
		}
		got := gateway.logged() + client.logged()
		if !strings.Contains(got, ": wrong secret") || strings.Contains(got, testPSK) || strings.Contains(got, "another than") {
			t.Errorf("logged:\n%s", got)
		}
	})
}

// A refusal is one warning at each end, also where it is tried again; the end of the
// SA that comes of it is none. Those who listen have the same facts.
func TestRefusalIsOneWarning(t *testing.T) {
	inBubble(t, func(t *testing.T, l *link) {
		c := gatewayConfig()
		c.Secrets = []Secret{{ID: "anna@example.org", PSK: []byte("another than the client's, long enough")}}
		gateway, client := l.end(t, c), l.end(t, clientConfig())
		for range 3 {
			_ = client.gateway.Initiate(context.Background(), "home")
		}
		time.Sleep(time.Minute)
		want := map[*end]string{
			gateway: `level=WARN msg="refused 10.7.0.2:500: claims to be \"anna@example.org\" for connection roadwarriors: wrong secret" by=us rule=secret
level=WARN msg="refused 10.7.0.2: wrong secret: 2 more in the last minute" not_logged=2
`,
			client: `level=WARN msg="198.51.100.1:500 refuses connection home: AUTHENTICATION_FAILED; we came as \"anna@example.org\" and expect \"vpn.example.org\"" by=peer rule=AUTHENTICATION_FAILED
level=WARN msg="198.51.100.1 refuses connection home: AUTHENTICATION_FAILED: 2 more in the last minute" not_logged=2
`}
		for e, lines := range want {
			var got strings.Builder
			for line := range strings.Lines(e.logged()) {
				if !strings.HasPrefix(line, "level=INFO") && !strings.HasPrefix(line, "level=DEBUG") {
					got.WriteString(line)
				}
			}
			if got.String() != lines {
				t.Errorf("logged:\n%s", &got)
			}
		}
		gateway.stop()
		told := 0
		for ev := range gateway.events {
			if r := ev.Refusal; r != nil {
				told++
				r.Error = ""
				if d := cmp.Diff(&Refusal{By: "us", Rule: "secret", Notify: "AUTHENTICATION_FAILED", Remote: ev.Remote, Connection: "roadwarriors",
					Claimed: "anna@example.org", Asked: "vpn.example.org", OurIDs: "vpn.example.org", Expected: "*@example.org", Secret: "anna@example.org",
					Agreed: "aes256gcm16-prfsha256-x25519"}, r, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})); d != "" || ev.Kind != "refused" || ev.Connection != "roadwarriors" {
					t.Errorf("%+v: %s", ev, d)
				}
			}
		}
		if told != 3 {
			t.Errorf("%d refusals were told", told)
		}
	})
}

// What is told before the end is logged, however much there is.
func TestHubEndsLast(t *testing.T) {
	var out bytes.Buffer
	h := testHub(slog.NewTextHandler(&out, nil))
	for range surgeBuffer {
		h.surge(shard.Surge{})
	}
	for range 100 {
		h.sink(shard.Event{Kind: sa.Established})
	}
	stop := make(chan struct{})
	close(stop)
	h.run(stop)
	got := out.String()
	if n := strings.Count(got, "surge: everybody"); n != surgeBuffer || strings.Count(got, "msg=established") != 100 {
		t.Errorf("%d surges are logged, and %d events", n, strings.Count(got, "msg=established"))
	}
	if strings.LastIndex(got, "surge: everybody") > strings.Index(got, "msg=established") {
		t.Error("a surge waits behind its events")
	}
}

// A surge is a line at its beginning and one at its end.
func TestSurgeIsLogged(t *testing.T) {
	var out bytes.Buffer
	h := testHub(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	h.log.surge(shard.Surge{HalfOpen: 1024})
	h.log.surge(shard.Surge{Over: true, HalfOpen: 4210, Lasted: 16*time.Second + 1, Counters: map[string]uint64{
		"established": 20000, "cookies_demanded": 18207, "auth_failed": 0, "shed_late": 3}})
	const want = `level=WARN msg="surge: everybody is asked for a cookie" half_open=1024
level=INFO msg="surge is over" lasted=16s half_open=4210 cookies_demanded=18207 established=20000 shed_late=3
`
	if got := out.String(); got != want {
		t.Errorf("logged:\n%s", got)
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"anna@example.org":        "anna@example.org",
		"two\nlines\x1b[2J":       `two\nlines\x1b[2J`,
		"\xff\u202e":              `\xff\u202e`,
		strings.Repeat("x", 1000): strings.Repeat("x", 256),
		strings.Repeat("\n", 200): strings.Repeat(`\n`, 128),
	} {
		if got := clip(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

func TestMissingEdge(t *testing.T) {
	l := &link{ends: map[netip.Addr]*end{}}
	for i, drop := range []func(*Edges){
		func(e *Edges) { e.Tracker = nil }, func(e *Edges) { e.DataPlane = nil }, func(e *Edges) { e.Sender = nil },
		func(e *Edges) { e.AllocSPI = nil }, func(e *Edges) { e.FreeSPI = nil }, func(e *Edges) { e.ESPShard = nil },
		func(e *Edges) { e.Clock = nil },
	} {
		edges := (&end{link: l}).edges()
		drop(&edges)
		if _, err := New(gatewayConfig(), edges); err == nil {
			t.Errorf("edge %d is not missed", i)
		}
	}
}
