// Package loadtest has many IKEv2 initiators of ours call one gateway, from one
// process, and measures what becomes of them. The initiators are those of
// package ike, so the gateway meets real handshakes, cookies, retransmissions
// and DELETEs.
//
// Tunnels are negotiated, not carried: there is no traffic in them, no DPD and
// no NAT keepalive of ours yet. What the gateway asks of a tunnel is answered.
package loadtest

import (
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

// Config is what is to be tried.
type Config struct {
	Gateway netip.Addr
	Peers   int
	Rate    int // handshakes begun a second; 0: all at once
	// Sources are the addresses that the peers call from, in turn: local ones,
	// of the gateway's family. There is at least one.
	Sources []netip.Addr
	Hold    time.Duration // how long the tunnels stay up after the last handshake has ended
	Timeout time.Duration // how long one handshake may take; 0: until the peer gives up by himself
	PSK     []byte
	// Identity is the peers' identity, in which %d is the number of the peer,
	// from 0.
	Identity  string
	GatewayID string // what the gateway must prove to be; see ike.ParsePattern
	Proposals []string
	ESP       []string // proposals
	Remote    netip.Prefix
	VirtualIP bool // ask for a virtual address of Remote's family
	// Progress, if set, is told a few times a second how it goes.
	Progress func(Progress)
}

// The ports of IKE. RFC 7296 §2.23
const (
	ikePort  = 500
	nattPort = 4500
)

// name is that of a peer's connection.
func name(peer int) string { return strconv.Itoa(peer) }

// IdentityOf is the identity of a peer.
func (c *Config) IdentityOf(peer int) string {
	return strings.ReplaceAll(c.Identity, "%d", strconv.Itoa(peer))
}

// ike is a configuration with a connection for each peer.
func (c *Config) ike() ike.Config {
	out := ike.Config{Addresses: c.Sources[:1], IKEPort: ikePort, NATTPort: nattPort,
		Shards: runtime.GOMAXPROCS(0), Capacity: c.Peers,
		Secrets: []ike.Secret{{ID: "%any", PSK: c.PSK}}}
	var virtual []netip.Addr
	if c.VirtualIP {
		virtual = []netip.Addr{unspecified(c.Remote.Addr())}
	}
	for n := range c.Peers {
		from := n % len(c.Sources)
		out.Connections = append(out.Connections, ike.Connection{
			Name: name(n), LocalID: c.IdentityOf(n), RemoteID: c.GatewayID,
			LocalAddresses: c.Sources[from : from+1], Hosts: []ike.Host{{Addr: c.Gateway}},
			Proposals: c.Proposals, ESPProposals: c.ESP, VirtualIPs: virtual, DPD: ike.DPD{Mode: "off"},
			Child: ike.Child{Name: "loadtest", LocalTS: []ike.Selector{{Dynamic: true}},
				RemoteTS: []ike.Selector{{Prefix: c.Remote, ToPort: 65535}}},
		})
	}
	return out
}

// unspecified is the unspecified address of an address's family.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
