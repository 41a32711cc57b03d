package charon_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/lab/charon"
	"github.com/ikepulse/ikepulse/test/require"
)

var inner = netip.MustParsePrefix("10.99.0.1/32")

const secret = `secrets {
	ike-1 {
		id-1 = gw.example
		id-2 = client.example
		secret = "correct horse battery staple"
	}
}
`

const gatewayConf = `connections {
	home {
		version = 2
		local_addrs = 198.51.100.1
		proposals = aes256gcm16-prfsha256-x25519
		pools = office
		local {
			auth = psk
			id = gw.example
		}
		remote {
			auth = psk
			id = client.example
		}
		children {
			net {
				local_ts = 10.99.0.0/16
				esp_proposals = aes128gcm16
			}
		}
	}
}
pools {
	office {
		addrs = 10.98.0.7/32
	}
}
` + secret

const clientConf = `connections {
	home {
		version = 2
		remote_addrs = 198.51.100.1
		proposals = aes256gcm16-prfsha256-x25519
		vips = 0.0.0.0
		local {
			auth = psk
			id = client.example
		}
		remote {
			auth = psk
			id = gw.example
		}
		children {
			net {
				remote_ts = 10.99.0.1/32
				esp_proposals = aes128gcm16
			}
		}
	}
}
` + secret

// limit is for what must come soon; only a fault waits that long.
const limit = 30 * time.Second

// network is a gateway with an inner address and a client behind the NAT.
func network(t *testing.T) (*lab.Lab, *lab.Standard) {
	t.Helper()
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := l.Standard(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Gateway.Address("lo", inner); err != nil {
		t.Fatal(err)
	}
	return l, s
}

func start(t *testing.T, n *lab.Namespace, conf string) *charon.Daemon {
	t.Helper()
	return startIn(t, n, t.TempDir(), conf)
}

func startIn(t *testing.T, n *lab.Namespace, dir, conf string) *charon.Daemon {
	t.Helper()
	d, err := charon.Start(n, dir, "keep_alive = 1s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %s", n.Name(), d.Log())
		}
		d.Process().Kill() // before its folder goes
	})
	if err := d.Load(conf); err != nil {
		t.Fatal(err)
	}
	return d
}

// only returns the daemon's single SA with its single child.
func only(t *testing.T, d *charon.Daemon) (charon.SA, charon.Child) {
	t.Helper()
	sas, err := d.SAs()
	if err != nil {
		t.Fatal(err)
	}
	if len(sas) != 1 || len(sas[0].Children) != 1 {
		t.Fatalf("want one SA with one child, have %+v", sas)
	}
	return sas[0], sas[0].Children[0]
}

// Two daemons, one behind the NAT, bring up a tunnel that carries traffic.
func TestTunnelThroughNAT(t *testing.T) {
	require.Have(t, "root", "netns", "bpf", "tun", "strongswan")
	l, s := network(t)
	gw, client := start(t, s.Gateway, gatewayConf), start(t, s.Clients[0], clientConf)
	if err := client.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	sa, child := only(t, client)
	if sa.State != "ESTABLISHED" || !sa.NATLocal || !sa.Initiator || !child.Encap ||
		sa.Encr != "AES_GCM_16" || sa.EncrBits != 256 || sa.PRF != "PRF_HMAC_SHA2_256" || sa.DH != "CURVE_25519" {
		t.Errorf("the client's SA: %+v", sa)
	}
	other, mirror := only(t, gw)
	if other.Remote.Addr() != lab.NATAddr || other.Remote.Port() == 4500 || other.InitiatorSPI != sa.InitiatorSPI {
		t.Errorf("the gateway's SA: %+v", other)
	}
	if child.SPIIn != mirror.SPIOut || child.SPIOut != mirror.SPIIn || mirror.RemoteTS[0] != "10.98.0.7/32" {
		t.Errorf("the children do not match: %+v and %+v", child, mirror)
	}
	ping := lab.Ping{Dst: inner.Addr(), Count: 3, Interval: 10 * time.Millisecond, Timeout: limit}
	if _, received, err := s.Clients[0].Ping(t.Context(), ping); received != 3 || err != nil {
		t.Errorf("%d of 3 pings answered, %v", received, err)
	}
	if _, child := only(t, client); child.PacketsIn != 3 || child.PacketsOut != 3 {
		t.Errorf("the client's SA carried %+v", child)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A daemon that is silent otherwise keeps its mapping alive, and the gateway
// receives that.
func TestKeepalives(t *testing.T) {
	require.Have(t, "root", "netns", "bpf", "tun", "strongswan")
	_, s := network(t)
	start(t, s.Gateway, gatewayConf)
	client := start(t, s.Clients[0], clientConf)
	c, err := s.Gateway.Capture(lab.GatewayLink, lab.Frame.Keepalive)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	await(t, "two keepalives", func() bool { return len(c.Frames()) >= 2 })
}

// A killed daemon says nothing; another can take its place in the same folder.
// A stopped one takes its SA with it at the peer.
func TestKillAndStop(t *testing.T) {
	require.Have(t, "root", "netns", "bpf", "tun", "strongswan")
	_, s := network(t)
	gw := start(t, s.Gateway, gatewayConf)
	dir := t.TempDir()
	first := startIn(t, s.Clients[0], dir, clientConf)
	if err := first.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	if err := first.Process().Kill(); err == nil {
		t.Error("a killed daemon ended well")
	}
	killed, _ := only(t, gw)

	second := startIn(t, s.Clients[0], dir, clientConf)
	if err := second.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	if sa, _ := only(t, gw); sa.InitiatorSPI == killed.InitiatorSPI {
		t.Errorf("the old SA is still there: %+v", sa)
	}
	if err := second.Stop(); err != nil {
		t.Error(err)
	}
	await(t, "the gateway has no SA", func() bool {
		sas, err := gw.SAs()
		return err == nil && len(sas) == 0
	})
}

func TestTerminate(t *testing.T) {
	require.Have(t, "root", "netns", "bpf", "tun", "strongswan")
	_, s := network(t)
	gw, client := start(t, s.Gateway, gatewayConf), start(t, s.Clients[0], clientConf)
	if err := client.Terminate("home"); err == nil {
		t.Error("terminated what was not there")
	}
	if err := client.Initiate("net"); err != nil {
		t.Fatal(err)
	}
	if err := client.Terminate("home"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*charon.Daemon{gw, client} {
		if sas, err := d.SAs(); len(sas) != 0 || err != nil {
			t.Errorf("after the end: %+v, %v", sas, err)
		}
	}
}

func TestStartFails(t *testing.T) {
	require.Have(t, "root", "netns", "bpf", "tun", "strongswan")
	_, s := network(t)
	_, err := charon.Start(s.Gateway, t.TempDir(), "plugins {\n")
	if err == nil {
		t.Error("charon started with a broken configuration")
	}
}

func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("not within %v: %s", limit, what)
}
