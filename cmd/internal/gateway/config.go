package gateway

import (
	"net/netip"
	"os/user"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/maps"
)

// Checks are what the configuration leaves to the gateway and to the host.
var Checks = config.Checks{IKEProposal: ike.CheckIKEProposal, ESPProposal: ike.CheckESPProposal, Common: ike.CommonIKE, Group: user.LookupGroup}

// ikeConfig is the part of a configuration that the IKE side needs, for a data
// plane in user space. xdp.capacity is what the maps have room for: the tunnels
// end where the SPIs do.
func ikeConfig(c *config.Config) ike.Config {
	out := ike.Config{Addresses: c.Listen.Addresses, Shards: c.Shards, Capacity: maps.MaxSPIs(c.XDP.Capacity),
		HalfOpen: ike.HalfOpen(c.HalfOpen), ForceEncap: true}
	for i := range c.Connections {
		out.Connections = append(out.Connections, connection(&c.Connections[i]))
	}
	for _, p := range c.Pools {
		out.Pools = append(out.Pools, ike.Pool{Name: p.Name, Prefixes: []netip.Prefix{p.Addresses}, DNS: p.DNS, Domains: p.Domains})
	}
	for _, s := range c.Secrets {
		out.Secrets = append(out.Secrets, ike.Secret{ID: s.ID.String(), LocalID: s.Local.String(), PSK: s.PSK.Bytes()})
	}
	return out
}

func connection(c *config.Connection) ike.Connection {
	child := &c.Children[0] // the configuration has exactly one
	return ike.Connection{
		Name: c.Name, LocalID: c.Local.ID.String(), RemoteID: c.Remote.ID.String(),
		LocalAddresses: c.Local.Literal(), Hosts: c.Remote.Hosts(),
		Proposals: c.Proposals, ESPProposals: child.ESPProposals, Pools: c.Pools, VirtualIPs: c.VIPs,
		NATKeepalive: c.NATKeepalive, MTU: c.MTU, Unique: c.Unique, MaxSAs: c.MaxSAs, MaxLeases: c.MaxLeases,
		DPD: ike.DPD{Mode: c.DPD.Mode, Delay: c.DPD.Delay, MaxSuppress: c.DPD.MaxSuppress,
			Timeout: c.DPD.Retransmit.Timeout, Base: c.DPD.Retransmit.Base, Tries: c.DPD.Retransmit.Tries},
		Child: ike.Child{Name: child.Name, LocalTS: selectors(child.LocalTS), RemoteTS: selectors(child.RemoteTS)},
		Start: child.StartAction == "start",
	}
}

func selectors(in []config.Selector) (out []ike.Selector) {
	for _, s := range in {
		out = append(out, ike.Selector(s))
	}
	return out
}
