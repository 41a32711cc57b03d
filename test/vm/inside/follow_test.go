//go:build vm

package inside

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/lab/charon"
	"github.com/ikepulse/ikepulse/test/require"
)

// soon is for what must come; only a fault waits that long.
const soon = 90 * time.Second

// tick is the longest that XDP's clock may take between two readings.
const tick = 1100 * time.Millisecond

// swanctl is both ends' configuration: name, ids and the traffic differ.
const swanctl = `connections {
	c {
		version = 2
		%s
		proposals = aes128gcm16-prfsha256-x25519
		local {
			auth = psk
			id = %s
		}
		remote {
			auth = psk
			id = %s
		}
		children {
			c {
				local_ts = %s
				remote_ts = %s
				esp_proposals = aes128gcm16-x25519
			}
		}
	}
}
secrets {
	ike-1 {
		id-1 = gw.example
		id-2 = client.example
		secret = "correct horse battery staple"
	}
}
`

// kernelESP leaves the user-space ESP out of charon's plugins.
const kernelESP = `	load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey gmp curve25519 hmac kdf aes sha1 sha2 gcm drbg kernel-netlink socket-default vici
`

var inner = netip.MustParseAddr("10.99.0.1")

// site is a daemon at each end of a NAT, each with the kernel's ESP. gateway is
// nil where it is not strongSwan.
type site struct {
	*testing.T
	*lab.Standard
	gateway, client *charon.Daemon
	follow          *lab.Process
	facts           *listener
}

// newSite is strongSwan at both ends.
func newSite(t *testing.T) *site {
	t.Helper()
	v := newNetwork(t)
	v.gateway = v.start(v.Gateway, "", fmt.Sprintf(swanctl, "", "gw.example", "client.example", inner.String()+"/32", lab.ClientAddr(0).String()+"/32"))
	v.startClient()
	return v
}

// newNetwork is a site without daemons.
func newNetwork(t *testing.T) *site {
	t.Helper()
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			_ = os.RemoveAll("/sys/fs/bpf/ikepulse") // or the next test fails with this one
		}
	})
	s, err := l.Standard(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Gateway.Address("lo", netip.PrefixFrom(inner, 32)); err != nil {
		t.Fatal(err)
	}
	return &site{T: t, Standard: s}
}

// startClient starts strongSwan behind the NAT.
func (v *site) startClient() {
	v.Helper()
	v.client = v.start(v.Clients[0], "	keep_alive = 2s\n",
		fmt.Sprintf(swanctl, "remote_addrs = "+lab.GatewayAddr.String(), "client.example", "gw.example", lab.ClientAddr(0).String()+"/32", inner.String()+"/32"))
}

func (v *site) start(n *lab.Namespace, settings, conf string) *charon.Daemon {
	v.Helper()
	d, err := charon.Start(n, v.TempDir(), kernelESP+settings)
	if err == nil {
		err = d.Load(conf)
	}
	if err != nil {
		v.Fatal(err)
	}
	v.Cleanup(func() {
		if v.Failed() {
			v.Logf("%s of %s:\n%s", filepath.Base(d.LogPath()), n.Name(), d.Log())
		}
	})
	return d
}

// rekey and terminate are the client's doing.
func (v *site) rekey() error {
	_, err := v.client.Swanctl("--rekey", "--child", "c")
	return err
}

func (v *site) terminate() error { return v.client.Terminate("c") }

func (v *site) run(args ...string) {
	v.Helper()
	out := new(lab.Transcript)
	p, err := v.Gateway.Start(lab.Command{Path: product, Args: args, Output: out})
	if err != nil {
		v.Fatal(err)
	}
	v.follow, v.facts = p, &listener{T: v.T, out: out}
}

// inbound are the kernel's own words: SPI to port of the peer, newest last.
func (v *site) inbound() (states []netlink.XfrmState) {
	v.Helper()
	err := v.Gateway.Do(func() error {
		all, err := netlink.XfrmStateList(netlink.FAMILY_V4)
		for _, s := range all {
			if s.Dst.Equal(lab.GatewayAddr.AsSlice()) && s.Encap != nil {
				states = append(states, s)
			}
		}
		return err
	})
	if err != nil {
		v.Fatal(err)
	}
	return states
}

// pings sends through the tunnel and returns when the first was sent and the
// last was answered.
func (v *site) pings(count int) (first, last time.Time) {
	v.Helper()
	first = time.Now()
	sent, received, err := v.Clients[0].Ping(v.Context(), lab.Ping{
		Dst: inner, Src: lab.ClientAddr(0), Count: count, Interval: 100 * time.Millisecond, Timeout: 10 * time.Second,
	})
	if err != nil || received == 0 {
		v.Fatalf("%d of %d pings answered, %v", received, sent, err)
	}
	v.Logf("%d of %d pings answered", received, sent)
	return first, time.Now()
}

// forge sends ESP with a right SPI and nothing else right, not from the peer's
// port, until stopped.
func (v *site) forge(spi uint32) (stop func()) {
	v.Helper()
	var conn net.Conn
	err := v.NAT.Do(func() (err error) {
		conn, err = net.Dial("udp4", netip.AddrPortFrom(lab.GatewayAddr, 4500).String())
		return err
	})
	if err != nil {
		v.Fatal(err)
	}
	packet := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, spi), 1<<20)
	packet = append(packet, make([]byte, 64)...)
	quit, ended := make(chan bool), make(chan bool)
	go func() { // until stop
		defer close(ended)
		for {
			_, _ = conn.Write(packet) // the alarm says whether it arrived
			select {
			case <-quit:
				return
			case <-time.After(300 * time.Millisecond):
			}
		}
	}()
	return func() { close(quit); <-ended; conn.Close() }
}

// fact is a line of follow --json.
type fact struct {
	Time       time.Time      `json:"time"`
	Event      string         `json:"event"`
	InSPI      string         `json:"spi_in"`
	OutSPI     string         `json:"spi_out"`
	Remote     netip.AddrPort `json:"remote"`
	IdleMS     *int64         `json:"idle_ms"`
	Proof      string         `json:"proof"`
	ProofMS    *int64         `json:"proof_ms"`
	Keepalives uint64         `json:"keepalives"`
	Alarm      string         `json:"alarm"`
	Why        string         `json:"why"`
	Heard      string         `json:"heard"`
	SAs        int            `json:"sas"`
	Absorbed   uint64         `json:"keepalives_absorbed"`
	Strangers  uint64         `json:"keepalives_from_strangers"`
	ESPKnown   uint64         `json:"esp_known"`
	ESPUnknown uint64         `json:"esp_unknown"`
}

// listener reads facts in their order.
type listener struct {
	*testing.T
	out  *lab.Transcript
	read int // bytes
}

// next waits for the next fact that is wanted; those before it are gone by.
func (l *listener) next(what string, wanted func(fact) bool) fact {
	l.Helper()
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for {
			line, _, whole := strings.Cut(l.out.String()[l.read:], "\n")
			if !whole {
				break
			}
			l.read += len(line) + 1
			var f fact
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				l.Fatalf("%v: %s", err, line)
			}
			if wanted(f) {
				return f
			}
		}
	}
	l.Fatalf("%s: nothing came; so far:\n%s", what, l.out)
	return fact{}
}

// skip passes by everything that has been told.
func (l *listener) skip() { l.read = strings.LastIndex(l.out.String(), "\n") + 1 }

func (l *listener) event(event, spi string) fact {
	l.Helper()
	return l.next(event+" "+spi, func(f fact) bool { return f.Event == event && (spi == "" || f.InSPI == spi) })
}

func hex(spi int) string { return fmt.Sprintf("%08x", uint32(spi)) }

// TestFollow: beside Debian's strongSwan with the kernel's ESP at both ends of
// a NAT, what follow tells is what kernel and network did.
func TestFollow(t *testing.T) {
	require.Have(t, "strongswan")
	v := newSite(t)
	if err := v.client.Initiate("c"); err != nil {
		t.Fatal(err)
	}
	before := v.inbound()
	if len(before) != 1 {
		t.Fatalf("%d inbound states", len(before))
	}
	spi := hex(before[0].Spi)
	v.run("follow", lab.GatewayLink, "--json", "--every", "1s")
	learned(v, spi, before[0].Encap.SrcPort)
	keepalivesAbsorbed(v, spi)
	idleTimes(v, spi)
	next := rekeyed(v, spi, v.rekey)
	next = reboundPeer(v, next)
	forged(v, next)
	noWindow(v)
	ended(v, v.terminate)
	v.tellFacts()
}

// tellFacts leaves in the test's log what follow told, but the reports.
func (v *site) tellFacts() {
	v.Helper()
	for line := range strings.Lines(v.facts.out.String()) {
		if !strings.Contains(line, `"event":"sa"`) && !strings.Contains(line, `"event":"summary"`) {
			v.Log(strings.TrimSpace(line))
		}
	}
}

// learned: what was there before is learned from the dump.
func learned(v *site, spi string, port int) {
	v.Helper()
	if f := v.facts.event("following", ""); f.SAs != 1 {
		v.Errorf("%+v", f)
	}
	row := v.facts.event("sa", spi)
	if want := netip.AddrPortFrom(lab.NATAddr, uint16(port)); row.Remote != want || row.OutSPI == "" || row.OutSPI == spi {
		v.Errorf("%+v, want %s", row, want)
	}
}

// keepalivesAbsorbed: every keepalive that the gateway's link brings is counted
// once, as absorbed, and none is a sign of life.
func keepalivesAbsorbed(v *site, spi string) {
	v.Helper()
	capture, err := v.NAT.Capture("n0", func(f lab.Frame) bool {
		_, to, payload, ok := f.UDP()
		return ok && to.Addr() == lab.GatewayAddr && len(payload) == 1
	})
	if err != nil {
		v.Fatal(err)
	}
	v.facts.skip()
	first := v.facts.event("sa", spi)
	before, sentBefore := v.facts.event("summary", ""), len(capture.Frames())
	last := v.facts.next("three more keepalives", func(f fact) bool { return f.Event == "sa" && f.InSPI == spi && f.Keepalives >= first.Keepalives+3 })
	after, sent := v.facts.event("summary", ""), len(capture.Frames())-sentBefore
	absorbed := int(after.Absorbed - before.Absorbed)
	// The report is a little older than the capture's end.
	if absorbed < 2 || absorbed > sent || absorbed < sent-1 || after.Strangers != before.Strangers {
		v.Errorf("%d keepalives sent, %d absorbed, %d from strangers", sent, absorbed, after.Strangers)
	}
	if last.IdleMS != nil || last.ProofMS != nil {
		v.Errorf("a keepalive counts as a sign of life: %+v", last)
	}
	v.Logf("%d keepalives sent, %d absorbed", sent, absorbed)
}

// idleTimes: idle begins with the last packet, give or take a tick and never
// more; proof is there, never newer than the last packet.
func idleTimes(v *site, spi string) {
	v.Helper()
	first, last := v.pings(5)
	v.facts.skip()
	row := v.facts.next("idle for five seconds", func(f fact) bool {
		return f.Event == "sa" && f.InSPI == spi && f.Time.Sub(last) > 7*time.Second && f.ProofMS != nil
	})
	idle := time.Duration(*row.IdleMS) * time.Millisecond
	if least, most := row.Time.Sub(last)-tick, row.Time.Sub(first); idle < least || idle > most {
		v.Errorf("idle for %v, want %v to %v", idle, least, most)
	}
	proof := time.Duration(*row.ProofMS) * time.Millisecond
	if row.Proof != "esp" || proof < row.Time.Sub(last)-tick {
		v.Errorf("proof by %q %v ago, the last packet was %v ago", row.Proof, proof, row.Time.Sub(last))
	}
	v.Logf("last packet %v to %v ago: idle %v, proof %v", row.Time.Sub(last), row.Time.Sub(first), idle, proof)
	if row.Alarm != "" {
		v.Errorf("alarm %q of an SA that works", row.Alarm)
	}
}

// rekeyed: a new SPI is learned from the kernel's events, the old one is gone
// when its daemon removes it, and pings go on being known.
func rekeyed(v *site, old string, rekey func() error) (next string) {
	v.Helper()
	v.facts.skip()
	if err := rekey(); err != nil {
		v.Fatal(err)
	}
	added := v.facts.event("sa_added", "")
	v.pings(5) // by which SPI is the client's choice
	v.facts.event("sa_removed", old)
	v.pings(3)
	states := v.inbound()
	if len(states) != 1 || hex(states[0].Spi) != added.InSPI || added.InSPI == old {
		v.Errorf("added %s after %s, the kernel has %v", added.InSPI, old, spis(states))
	}
	row := v.facts.next("proof of the new SA", func(f fact) bool { return f.Event == "sa" && f.InSPI == added.InSPI && f.ProofMS != nil })
	if row.IdleMS == nil || row.Proof != "esp" || row.Alarm != "" {
		v.Errorf("%+v", row)
	}
	if sum := v.facts.event("summary", ""); sum.SAs != 1 || sum.ESPUnknown != 0 {
		v.Errorf("%+v", sum)
	}
	return added.InSPI
}

func spis(states []netlink.XfrmState) (all []string) {
	for _, s := range states {
		all = append(all, hex(s.Spi))
	}
	return all
}

// reboundPeer: the NAT gives another port; the kernel's word and the daemon's
// new states arrive, and keepalives from there are known.
func reboundPeer(v *site, spi string) string {
	v.Helper()
	v.facts.skip()
	before := v.inbound()[0].Encap.SrcPort
	if err := v.NAT.FlushConntrack(); err != nil {
		v.Fatal(err)
	}
	go v.Clients[0].Ping(v.Context(), lab.Ping{Dst: inner, Src: lab.ClientAddr(0), Count: 20, Interval: 200 * time.Millisecond, Timeout: time.Second}) // what is heard is told
	heard := v.facts.event("heard_elsewhere", spi)
	row := v.facts.next("the SA at its new port", func(f fact) bool { return f.Event == "sa" && f.Remote.String() == heard.Heard && f.Alarm == "" })
	states := v.inbound()
	if len(states) != 1 || states[0].Encap.SrcPort == before || int(row.Remote.Port()) != states[0].Encap.SrcPort || row.InSPI != hex(states[0].Spi) {
		v.Errorf("%+v, port %d before, the kernel has %v", row, before, states)
	}
	after := v.facts.next("a keepalive from there", func(f fact) bool { return f.Event == "sa" && f.Remote == row.Remote && f.Keepalives > row.Keepalives })
	return after.InSPI
}

// forged: packets with the right SPI and nothing else right raise the alarm and
// prove nothing; a good one ends it.
func forged(v *site, spi string) {
	v.Helper()
	v.facts.skip()
	proved := v.facts.event("sa", spi)
	number := v.inbound()[0].Spi
	stop := v.forge(uint32(number))
	alarm := v.facts.event("alarm", spi)
	row := v.facts.event("sa", spi)
	stop()
	if alarm.Alarm != "unauthenticated" || !strings.Contains(alarm.Why, "integrity") {
		v.Errorf("%+v", alarm)
	}
	if row.IdleMS == nil || time.Duration(*row.IdleMS)*time.Millisecond > 3*time.Second {
		v.Errorf("the forged packets left no hint: %+v", row)
	}
	if proved.ProofMS != nil && *row.ProofMS < *proved.ProofMS {
		v.Errorf("they count as proof: %d ms, %d ms before", *row.ProofMS, *proved.ProofMS)
	}
	v.pings(3)
	v.facts.event("alarm_over", spi)
}

// noWindow: the kernel's counters prove nothing of a state without a replay
// window, and that is shown.
func noWindow(v *site) {
	v.Helper()
	const spi = 0x00000777
	other := &netlink.XfrmState{
		Src: net.ParseIP("203.0.113.1"), Dst: lab.GatewayAddr.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
		Spi: spi, Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: make([]byte, 20), ICVLen: 128},
	}
	if err := v.Gateway.Do(func() error { return netlink.XfrmStateAdd(other) }); err != nil {
		v.Fatal(err)
	}
	if row := v.facts.event("sa", hex(spi)); row.Proof != "hint" || row.ProofMS != nil {
		v.Errorf("%+v", row)
	}
	if err := v.Gateway.Do(func() error { return netlink.XfrmStateDel(other) }); err != nil {
		v.Fatal(err)
	}
	v.facts.event("sa_removed", hex(spi))
}

// ended: with the tunnel its SAs go; with follow nothing but itself, and
// detach leaves nothing.
func ended(v *site, terminate func() error) {
	v.Helper()
	v.facts.skip()
	if err := terminate(); err != nil {
		v.Fatal(err)
	}
	v.facts.event("sa_removed", "")
	if sum := v.facts.event("summary", ""); sum.SAs != 0 || sum.Strangers > 2 {
		v.Errorf("%+v", sum)
	}
	if left := v.sas(); len(left) > 0 {
		v.Errorf("the maps still have %+v", left)
	}
	if err := errors.Join(v.follow.Signal(syscall.SIGTERM), v.follow.Wait()); err != nil {
		v.Errorf("follow ended with %v\n%s", err, v.facts.out)
	}
	v.attached(1)
	v.command("detach", "--all")
	v.attached(0)
	if left, err := os.ReadDir("/sys/fs/bpf"); err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool { return e.Name() == "ikepulse" }) {
		v.Errorf("left: %v, %v", left, err)
	}
}

// command runs the product in the gateway until it ends, and returns its output.
func (v *site) command(args ...string) []byte {
	v.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + v.Gateway.NetnsPath(), product}, args...)...).CombinedOutput()
	if err != nil {
		v.Errorf("%s: %v\n%s", args[0], err, out)
	}
	return out
}

// sas is what the command of that name shows.
func (v *site) sas() (rows []fact) {
	v.Helper()
	out := v.command("sas", "--json")
	if err := json.Unmarshal(out, &rows); err != nil {
		v.Errorf("%v: %s", err, out)
	}
	return rows
}

// attached wants so many programs on the gateway's link.
func (v *site) attached(want int) {
	v.Helper()
	err := v.Gateway.Do(func() error {
		link, err := netlink.LinkByName(lab.GatewayLink)
		if err != nil {
			return err
		}
		if xdp := link.Attrs().Xdp; (xdp != nil && xdp.Attached) != (want == 1) {
			v.Errorf("%+v on the link, want %d programs", xdp, want)
		}
		return nil
	})
	if err != nil {
		v.Error(err)
	}
}
