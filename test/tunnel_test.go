package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestStrongSwanTunnel: what both sides have agreed on is the same, is what the
// configuration asks for, and carries packets both ways.
func TestStrongSwanTunnel(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	routes := routing(t, s.net.Gateway)
	client := s.client(0, "", peerConfig{remoteTS: "10.99.0.0/16"})
	initiate(t, client, "net")

	theirs, theirChild := only(t, client)
	ours := s.gw.peer()
	if theirs.State != "ESTABLISHED" || theirs.Encr != "AES_GCM_16" || theirs.EncrBits != 256 ||
		theirs.PRF != "PRF_HMAC_SHA2_256" || theirs.DH != "CURVE_25519" || theirs.Integ != "" {
		t.Errorf("strongSwan's IKE SA: %+v", theirs)
	}
	if ours.Suite != "aes256gcm16-prfsha256-x25519" || ours.State != "established" || ours.Role != "responder" ||
		ours.Identity != "anna@example.org" || ours.Connection != "home" {
		t.Errorf("our IKE SA: %+v", ours)
	}
	if ours.SPI != fmt.Sprintf("%016x", theirs.ResponderSPI) || ours.PeerSPI != fmt.Sprintf("%016x", theirs.InitiatorSPI) {
		t.Errorf("SPIs: ours %s %s, theirs %x %x", ours.SPI, ours.PeerSPI, theirs.ResponderSPI, theirs.InitiatorSPI)
	}
	if !theirs.NATLocal || !ours.PeerNATted || ours.LocalNATted || ours.Remote.Addr() != lab.NATAddr ||
		ours.Remote.Port() == lab.NATTPort || theirs.Local.Port() != lab.NATTPort {
		t.Errorf("NAT: ours %+v, theirs %+v", ours, theirs)
	}
	if theirChild.Encr != "AES_GCM_16" || theirChild.EncrBits != 256 || !theirChild.Encap || theirChild.ESN || theirChild.DH != "" {
		t.Errorf("strongSwan's child: %+v", theirChild)
	}
	if c := ours.Child; c.Suite != "aes256gcm16" || c.InSPI != fmt.Sprintf("%08x", theirChild.SPIOut) || c.OutSPI != fmt.Sprintf("%08x", theirChild.SPIIn) {
		t.Errorf("our child: %+v, theirs %+v", c, theirChild)
	}
	vip := vipOf(t, theirs.LocalVIPs)
	if !slices.Equal(ours.Child.LocalTS, []string{"10.99.0.1/32"}) || !slices.Equal(ours.Child.RemoteTS, []string{vip.String() + "/32"}) ||
		!slices.Equal(theirChild.RemoteTS, []string{"10.99.0.1/32"}) || !slices.Equal(theirChild.LocalTS, []string{vip.String() + "/32"}) {
		t.Errorf("selectors: ours %+v, theirs %+v", ours.Child, theirChild)
	}

	ping(t, s.net.Clients[0], vip, inner, 5, 20*time.Millisecond)
	ping(t, s.net.Gateway, inner, vip, 5, 20*time.Millisecond)
	st := s.gw.status()
	if c := st.Dataplane.Counters; c["in"] != 10 || c["out"] != 10 {
		t.Errorf("our data plane carried %v", c)
	}
	if _, c := only(t, client); c.PacketsIn != 10 || c.PacketsOut != 10 {
		t.Errorf("strongSwan's child carried %+v", c)
	}
	spis, tuples := tracked(t, s.gw.maps())
	if len(spis) != 1 || spis[0] != theirChild.SPIOut || len(tuples) != 1 || tuples[0].Tuple.Peer != ours.Remote ||
		tuples[0].Owners != 1 || !tuples[0].NATted {
		t.Errorf("the maps: SPIs %x, tuples %+v", spis, tuples)
	}
	if known := st.xdp("esp_udp_known"); known != 10 {
		t.Errorf("XDP knows %d of 10 ESP packets", known)
	}
	if err := client.Terminate("home"); err != nil {
		t.Fatal(err)
	}
	s.cleared(routes)
}

func vipOf(t *testing.T, vips []string) netip.Addr {
	t.Helper()
	if len(vips) != 1 {
		t.Fatalf("virtual addresses %v", vips)
	}
	return netip.MustParseAddr(vips[0])
}

// TestStrongSwanProposals: each kind of algorithm carries a tunnel.
func TestStrongSwanProposals(t *testing.T) {
	for _, tt := range []struct {
		name      string
		ike, esp  string // ours
		swanIKE   string // empty: the same
		swanESP   string
		wantIKE   string // empty: ike
		wantESP   string
		invalidKE bool
	}{
		{name: "first guess ecp256", ike: "aes256gcm16-prfsha256-x25519", esp: "aes128gcm16",
			swanIKE: "aes256gcm16-prfsha256-ecp256-ecp384-x25519", invalidKE: true},
		{name: "first guess ecp384", ike: "aes128gcm16-prfsha512-x25519", esp: "aes128gcm16",
			swanIKE: "aes128gcm16-prfsha512-ecp384-x25519", invalidKE: true},
		{name: "CBC and HMAC", ike: "aes256-sha256-modp2048", esp: "aes256-sha256"},
		{name: "CBC and long HMAC", ike: "aes128-sha512-ecp256", esp: "aes128-sha512"},
		{name: "CBC, x25519, sha384", ike: "aes192-sha384-x25519", esp: "aes192-sha384"},
		{name: "ChaCha20", ike: "chacha20poly1305-prfsha384-x25519", esp: "chacha20poly1305"},
		{name: "ecp384", ike: "aes256gcm16-prfsha512-ecp384", esp: "aes256gcm16"},
		{name: "modp3072", ike: "aes256gcm16-prfsha384-modp3072", esp: "aes256gcm16"},
		{name: "no ESN, by our preference", ike: "aes256gcm16-prfsha384-x25519", esp: "aes128gcm16-noesn-esn",
			swanESP: "aes128gcm16-esn-noesn", wantESP: "aes128gcm16"},
		{name: "strongSwan's defaults", ike: "aes256gcm16-prfsha384-x25519", esp: "aes256gcm16",
			swanIKE: "default", swanESP: "default"},
		{name: "strongSwan's defaults, CBC", ike: "aes256-sha256-ecp256", esp: "aes256-sha256",
			swanIKE: "default", swanESP: "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1, gatewayConfig{ike: tt.ike, esp: tt.esp})
			client := s.client(0, "", peerConfig{ike: or(tt.swanIKE, tt.ike), esp: or(tt.swanESP, tt.esp)})
			initiate(t, client, "net")
			theirs, child := only(t, client)
			ours := s.gw.peer()
			if ours.Suite != or(tt.wantIKE, tt.ike) || ours.Child.Suite != or(tt.wantESP, tt.esp) || child.ESN {
				t.Errorf("agreed on %s and %s\nstrongSwan: %+v", ours.Suite, ours.Child.Suite, theirs)
			}
			refused := strings.Contains(client.Log(), "it requested CURVE_25519")
			if refused != tt.invalidKE {
				t.Errorf("INVALID_KE_PAYLOAD: %v", refused)
			}
			busy := strings.Count(client.Log(), "ignoring request with ID 0, already processing")
			if again := strings.Count(client.Log(), "retransmit "); again > busy {
				t.Errorf("strongSwan had to ask again %d times", again-busy)
			}
			ping(t, s.net.Clients[0], vipOf(t, theirs.LocalVIPs), inner, 3, 10*time.Millisecond)
			ping(t, s.net.Gateway, inner, vipOf(t, theirs.LocalVIPs), 3, 10*time.Millisecond)
		})
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// TestStrongSwanRefused: strongSwan reads the notify that says why, and nothing
// stays behind.
func TestStrongSwanRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	routes := routing(t, s.net.Gateway)
	for _, tt := range []struct {
		name    string
		config  peerConfig
		log     string // strongSwan's
		refusal string // ours
	}{
		{"wrong PSK", peerConfig{psk: "guessed"}, "received AUTHENTICATION_FAILED notify error", `claims to be "anna@example.org" for connection home: wrong secret`},
		{"unknown identity", peerConfig{id: "anna@example.net"}, "received AUTHENTICATION_FAILED notify error", `claims to be "anna@example.net": no connection is for this identity`},
		{"IKE proposal", peerConfig{ike: "aes128-sha1-modp2048"}, "received NO_PROPOSAL_CHOSEN notify error", "offers aes128-sha1-modp2048, we take "},
		{"ESP proposal", peerConfig{esp: "aes128-sha1"}, "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built", " offers ESP aes128-sha1"},
		{"selectors", peerConfig{remoteTS: "10.97.0.0/16"}, "received TS_UNACCEPTABLE notify, no CHILD_SA built", "wants 10.97.0.0/16 from "},
		{"no virtual address asked for", peerConfig{vips: "none"}, "received FAILED_CP_REQUIRED notify, no CHILD_SA built", "asks for no virtual address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sub := &site{T: t, net: s.net, gw: s.gw}
			client := sub.client(0, "", tt.config)
			if err := client.Initiate("net"); err == nil {
				t.Error("strongSwan has a tunnel")
			}
			if !strings.Contains(client.Log(), tt.log) {
				t.Errorf("strongSwan has not %q:\n%s", tt.log, client.Log())
			}
			await(t, "our log has "+tt.refusal, func() bool {
				return strings.Count(s.gw.log.String(), strings.ReplaceAll(tt.refusal, `"`, `\"`)) == 1
			})
			if err := client.Stop(); err != nil {
				t.Error(err)
			}
			sub.cleared(routes)
		})
	}
}

// parseSPI reads an SPI as our commands print it.
func parseSPI(t *testing.T, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
