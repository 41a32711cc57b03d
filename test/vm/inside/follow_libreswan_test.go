//go:build vm

package inside

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/lab/pluto"
	"github.com/ikepulse/ikepulse/test/require"
)

// libreswan is the folder in which the host has unpacked it.
var libreswan = os.Getenv("IKEPULSE_LIBRESWAN")

// ipsecConf is the gateway's; its updown script would want a shell and iptables.
const ipsecConf = `config setup

conn c
	ikev2=insist
	authby=secret
	left=%s
	leftid=@gw.example
	leftsubnet=%s/32
	leftupdown=%%disabled
	right=%%any
	rightid=@client.example
	rightsubnet=%s/32
	ike=aes_gcm128-sha2_256-dh31
	esp=aes_gcm128-null
	auto=add
`

const ipsecSecrets = `@gw.example @client.example : PSK "correct horse battery staple"
`

// newLibreswanSite is libreswan's gateway and strongSwan's client.
func newLibreswanSite(t *testing.T) (*site, *pluto.Daemon) {
	t.Helper()
	v := newNetwork(t)
	// Unlike charon, pluto wants to know a way to the peer's inner address.
	if err := v.Gateway.Route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), lab.NATAddr); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(ipsecConf, lab.GatewayAddr, inner, lab.ClientAddr(0))
	gateway, err := pluto.Start(v.Gateway, libreswan, t.TempDir(), conf, ipsecSecrets)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("pluto:\n%s", gateway.Log())
		}
		gateway.Process().Kill() // before its folder goes
	})
	v.startClient()
	return v, gateway
}

// TestFollowLibreswan: beside Debian's libreswan with the kernel's ESP, whose
// states have another replay window than strongSwan's and stay where they are when
// the NAT moves the peer, what follow tells is what kernel and network did.
func TestFollowLibreswan(t *testing.T) {
	require.Have(t, "strongswan") // the client
	v, gateway := newLibreswanSite(t)
	if err := v.client.Initiate("c"); err != nil {
		t.Fatal(err)
	}
	before := v.inbound()
	// The window is one of those that stand in an attribute of their own.
	if len(before) != 1 || before[0].ReplayWindow != 0 {
		t.Fatalf("inbound states %v", spis(before))
	}
	spi := hex(before[0].Spi)
	v.run("follow", lab.GatewayLink, "--json", "--every", "1s")
	learned(v, spi, before[0].Encap.SrcPort)
	idleTimes(v, spi)
	if row := v.facts.event("sa", spi); row.Keepalives == 0 {
		t.Errorf("no keepalive in seconds without a packet: %+v", row)
	}
	listed(v, spi)
	next := rekeyed(v, spi, func() error {
		_, err := gateway.Whack("--rekey-ipsec", "--name", "c", "--asynchronous")
		return err
	})
	listed(v, next)
	leftBehind(v, next)
	next = rekeyed(v, next, v.rekey) // which repairs it
	listed(v, next)
	ended(v, func() error {
		_, err := gateway.Whack("--terminate", "--name", "c")
		return err
	})
	v.tellFacts()
}

// listed: an SA that has been proved is a line of "ikepulse sas", and there is
// no other.
func listed(v *site, spi string) {
	v.Helper()
	told := v.facts.event("sa", spi)
	rows := v.sas()
	if len(rows) != 1 || rows[0].InSPI != spi || rows[0].Remote != told.Remote || rows[0].Proof != "esp" || rows[0].Alarm != "" {
		v.Errorf("%+v, follow told %+v", rows, told)
		return
	}
	passed := time.Since(told.Time)
	if row := rows[0]; !older(age(row.IdleMS), age(told.IdleMS), passed) || !older(age(row.ProofMS), age(told.ProofMS), passed) {
		v.Errorf("idle %v, proof %v; follow told %v and %v %v ago", age(row.IdleMS), age(row.ProofMS), age(told.IdleMS), age(told.ProofMS), passed)
	}
}

// older: an age has grown by what has passed at most. The maps have it in ticks.
func older(now, told, passed time.Duration) bool {
	return min(now, told) >= 0 && now >= told-tick && now <= told+passed+tick
}

// age is negative for never.
func age(ms *int64) time.Duration {
	if ms == nil {
		return -1
	}
	return time.Duration(*ms) * time.Millisecond
}

// leftBehind: libreswan leaves its states at the port that the peer had, and the
// kernel says with every packet that it is another. follow says so once.
func leftBehind(v *site, spi string) {
	v.Helper()
	v.facts.skip()
	before, told := v.facts.event("sa", spi).Remote, v.facts.read
	if err := v.NAT.FlushConntrack(); err != nil {
		v.Fatal(err)
	}
	sent, received, err := v.Clients[0].Ping(v.Context(), lab.Ping{
		Dst: inner, Src: lab.ClientAddr(0), Count: 5, Interval: 200 * time.Millisecond, Timeout: 500 * time.Millisecond,
	})
	if sent != 5 || received != 0 {
		v.Errorf("%d of %d pings answered, %v: this libreswan does follow the peer", received, sent, err)
	}
	heard := v.facts.event("heard_elsewhere", spi)
	if heard.Alarm != "moved" || heard.Remote != before || heard.Heard == before.String() {
		v.Errorf("%+v, the SA is at %s", heard, before)
	}
	if times := strings.Count(v.facts.out.String()[told:], `"heard_elsewhere"`); times != 1 {
		v.Errorf("told %d times", times)
	}
}
