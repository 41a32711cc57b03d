package sa

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the transcripts with what happens now")

// TestTranscripts plays each testdata/*.txt: lines that begin with "> " are
// commands, the lines under one are what happens. They are meant to be read.
func TestTranscripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) < 10 {
		t.Fatalf("only %d transcripts", len(files))
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(string(want), got); d != "" && !*update {
				t.Error(d)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	w := newWorld(t)
	w.log = &strings.Builder{}
	for _, line := range strings.Split(script, "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			w.log.WriteString(line + "\n")
		case strings.HasPrefix(line, "> "):
			w.log.WriteString(line + "\n")
			w.command(strings.Fields(line[2:]))
		}
	}
	return w.log.String()
}

func (w *world) node(name string) *node {
	if name == "client" {
		return w.client
	}
	return w.gateway
}

func (w *world) command(args []string) {
	arg := func(i int) string { return args[min(i, len(args)-1)] }
	n := w.node(arg(1))
	switch args[0] {
	case "initiate":
		w.initiate()
	case "run":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			w.t.Fatal(err)
		}
		w.run(d)
	case "probe":
		w.do(n, Probe{})
	case "terminate":
		w.do(n, Terminate{})
	case "displace":
		w.do(n, Displace{})
	case "replace":
		w.do(n, Replace{})
	case "admission": // is refused by this rule
		n.refuse = map[string]policy.Rule{"not-unique": policy.NotUnique, "too-many": policy.TooManySAs, "too-many-leases": policy.TooManyLeases}[arg(2)]
	case "not-alone":
		n.company = true
	case "dead":
		w.do(n, Dead{})
	case "kill":
		n.dead = true
	case "fail":
		n.fail = arg(2)
	case "no-nat":
		w.natted = false
	case "encap":
		n.env.ForceEncap = true
	case "no-slots":
		n.nextSPI = 0
	case "no-lease":
		n.lease = nil
	case "rebind":
		w.natPort += 1000
	case "esp": // of the client arrives, authenticated, from the present mapping
		w.do(w.gateway, Rebound{Path{w.gateway.sa.Path().Local, netip.AddrPortFrom(natAddr, w.natPort)}})
	case "secret":
		n.env.Policy = policy.NewSet([]*policy.Connection{n.conn}, []policy.Secret{{Remote: pattern("%any"), PSK: []byte(strings.Join(args[2:], " "))}})
	case "proposals":
		n.conn.Proposals = proposals(w.t, suite.ParseIKE, args[2:]...)
		n.env.Policy = policy.NewSet([]*policy.Connection{n.conn}, []policy.Secret{{Remote: pattern("%any"), PSK: []byte(testPSK)}})
	case "local-ts":
		n.conn.Child.Local = []wire.Selector{prefix(arg(2))}
	case "remote-ts":
		n.conn.Child.Remote = []wire.Selector{prefix(arg(2))}
	case "lose":
		w.loseNext(n, arg(2))
	case "request":
		w.request(n, arg(2))
	case "state":
		w.logState()
	default:
		w.t.Fatalf("no such command: %v", args)
	}
}

// loseNext drops the next n datagrams of a node.
func (w *world) loseNext(n *node, count string) {
	left, _ := strconv.Atoi(count)
	w.drop = func(f flight) bool {
		if f.from != n || left == 0 {
			return false
		}
		left--
		return true
	}
}

// request makes a node send a request that it would not send by itself.
func (w *world) request(n *node, what string) {
	var out Effects
	ex, ps := wire.Informational, []wire.Payload{}
	switch what {
	case "create-child":
		ex = wire.CreateChildSA
		ps = append(ps, &wire.Nonce{Data: make([]byte, 32)})
	case "delete-child":
		ps = append(ps, &wire.Delete{Protocol: wire.ProtoESP, SPIs: []uint32{n.sa.rec.Child.InSPI}})
	case "delete-foreign":
		ps = append(ps, &wire.Delete{Protocol: wire.ProtoESP, SPIs: []uint32{0xdeadbeef}})
	case "mobike":
		ps = append(ps, &wire.Notify{Kind: wire.MOBIKESupported}, &wire.Notify{Kind: 65000})
	case "critical":
		ps = append(ps, &wire.Raw{T: 200, Critical: true})
	case "broken":
		ps = append(ps, &wire.Raw{T: wire.TypeDelete, Data: []byte{3, 4, 0}})
	}
	n.sa.start(w.now, probeRequest, ex, &out, ps...)
	w.carryOut(n, &out)
}

func (w *world) logState() {
	for _, n := range []*node{w.client, w.gateway} {
		if n.sa == nil {
			w.logf("        %-7s no SA; %s", n.name, held(n))
			continue
		}
		w.logf("        %-7s %v, path %v-%v; %s", n.name, n.sa.State(), n.sa.Path().Local, n.sa.Path().Remote, held(n))
	}
}

func held(n *node) string {
	if n.empty() == nil {
		return "nothing held"
	}
	return fmt.Sprintf("in %d, out %d, tracked %d, identity %q, record %v", len(n.in), len(n.out), len(n.tracked),
		n.admitted, n.record != nil)
}

// describe is a step's line in the transcript; "" for what a reader can do
// without.
func (w *world) describe(n *node, st Step) string {
	switch st := st.(type) {
	case Persist:
		return "persist"
	case Forget:
		return "forget"
	case Track:
		return fmt.Sprintf("track %08x from %v, natted %v", st.SPI, st.Path.Remote, st.PeerNATted)
	case Untrack:
		return fmt.Sprintf("untrack %08x", st.SPI)
	case Retrack:
		return fmt.Sprintf("retrack %08x to %v", st.SPI, st.New.Remote)
	case InstallInbound:
		return fmt.Sprintf("install in %08x %v %v <- %v", st.Child.InSPI, st.Child.Suite, ranges(st.Child.Local), ranges(st.Child.Remote))
	case InstallOutbound:
		return fmt.Sprintf("install out %08x to %v", st.Child.OutSPI, st.Child.Path.Remote)
	case MoveOutbound:
		return fmt.Sprintf("move out %08x to %v", st.OutSPI, st.Path.Remote)
	case RemoveOutbound:
		return fmt.Sprintf("remove out %08x", st.OutSPI)
	case RemoveInbound:
		return fmt.Sprintf("remove in %08x", st.InSPI)
	case Send:
		return fmt.Sprintf("send %v", w.decode(n, st.Packet.Data)) + w.stamp()
	case Keepalive:
		return "send keepalive" + w.stamp()
	case Admit:
		return fmt.Sprintf("admit %s, initial contact %v, want %v", n.sa.PeerID(), st.InitialContact, st.Want)
	case Leave:
		return "leave"
	case ReturnLeases:
		return "return leases"
	case Report:
		return "* " + describeEvent(st.Event)
	}
	return ""
}

func (w *world) stamp() string {
	return fmt.Sprintf("  @%.3f", time.Duration(w.now-3600e9).Seconds())
}

func describeEvent(e Event) string {
	s := e.Kind.String()
	if e.Kind == Closed {
		s += ": " + e.Reason.String()
	}
	switch r := e.Refusal; {
	case r == nil:
	case r.ByPeer:
		s += " by the peer:"
	default:
		s += " by rule: " + r.Rule.String()
	}
	if e.Notify != 0 {
		s += " " + e.Notify.String()
	}
	if e.Try > 0 {
		s += " " + strconv.Itoa(e.Try)
	}
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	return s
}

func ranges(ss []wire.Selector) string {
	var out []string
	for _, s := range ss {
		out = append(out, s.Start.String()+"-"+s.End.String())
	}
	return strings.Join(out, ",")
}

// decode names a message's exchange and payloads, opening what its sender
// sealed.
func (w *world) decode(n *node, data []byte) string {
	m, err := wire.Parse(data)
	if err != nil {
		return err.Error()
	}
	ps := m.Payloads
	if slices.ContainsFunc(ps, func(p wire.Payload) bool { return p.Type() == wire.TypeSK }) {
		encr, integ := &n.keys.Er, &n.keys.Ar
		if n.sa.rec.Role == Initiator {
			encr, integ = &n.keys.Ei, &n.keys.Ai
		}
		if ps, err = n.sa.rec.Suite.Open(data, m, encr, integ); err != nil && !errors.As(err, new(*wire.SyntaxError)) && !errors.As(err, new(*wire.CriticalError)) {
			w.t.Errorf("%s sends what it cannot open: %v", n.name, err)
		}
	}
	kind := "request"
	if m.Flags&wire.FlagResponse != 0 {
		kind = "response"
	}
	var names []string
	for _, p := range ps {
		name := p.Type().String()
		if nt, ok := p.(*wire.Notify); ok {
			name = "N(" + nt.Kind.String() + ")"
		}
		names = append(names, name)
	}
	return fmt.Sprintf("%v %s %d {%s} %d bytes", m.Exchange, kind, m.MessageID, strings.Join(names, " "), len(data))
}
