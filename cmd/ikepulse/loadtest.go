package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/loadtest"
	"github.com/ikepulse/ikepulse/ike"
)

// mostPeers is what the memory of an ordinary machine holds.
const mostPeers = 1 << 20

func loadtestCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "loadtest", Category: "Try", Usage: "many clients call a gateway of yours, and it is told how that went",
		UsageText: "GATEWAY --psk-file FILE [--peers N] [--rate N] [--from PREFIX] ...",
		Description: `Real IKEv2 initiators in one process: the handshakes, and the DELETEs at the end.
Nothing goes through the tunnels yet. It needs no root, which gives it the receive
buffer that thousands of peers want.

It calls only an address that is local or on a link of this host. A gateway takes
few half-open handshakes of one address, so many peers want --from: addresses that
are made local here, and routed back here by the gateway:
  ip route add local 10.8.0.0/16 dev lo        # here
  ip route add 10.8.0.0/16 via THIS-HOST       # at the gateway

When the first 16 peers get no answer the others do not call. Exit code 0 if all
are up.

Example: ikepulse loadtest 198.51.100.1 --peers 4000 --from 10.8.0.0/16 --psk-file psk`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "psk-file", Usage: "the secret of all peers is in `FILE`: mode 0600, at least 20 characters"},
			&cli.IntFlag{Name: "peers", Value: 100, Usage: "`N` peers; default 100"},
			&cli.IntFlag{Name: "rate", Usage: "`N` handshakes begin a second; default: all at once"},
			&cli.StringFlag{Name: "from", Usage: "the peers take the host addresses of `PREFIX` in turn; default: one address for all"},
			&cli.DurationFlag{Name: "hold", Usage: "keep the tunnels for `TIME` before they are deleted"},
			&cli.DurationFlag{Name: "timeout", Usage: "a handshake may take `TIME`; default: 165s an exchange, five retransmissions"},
			&cli.StringFlag{Name: "id", Value: "loadtest-%d@example.org", Usage: "the peers are called `NAME`, %d being the number of one; default loadtest-%d@example.org; without %d all are one identity, which a gateway gives its share"},
			&cli.StringFlag{Name: "gateway-id", Value: "%any", Usage: "the gateway must be `ID`; default %any"},
			&cli.StringSliceFlag{Name: "proposal", Value: cli.NewStringSlice(loadProposals...), Usage: "`PROPOSAL` for IKE, repeatable; default " + strings.Join(loadProposals, ", ")},
			&cli.StringSliceFlag{Name: "esp-proposal", Value: cli.NewStringSlice(loadESPProposals...), Usage: "`PROPOSAL` for ESP, repeatable; default " + strings.Join(loadESPProposals, ", ")},
			&cli.StringFlag{Name: "remote-ts", Usage: "ask for tunnels to `PREFIX`; default 0.0.0.0/0, for an IPv6 gateway ::/0"},
			&cli.BoolFlag{Name: "vip", Value: true, Usage: "ask for a virtual address; default yes, --vip=false asks for none"},
			&cli.BoolFlag{Name: "i-own-this-gateway", Usage: "call it even if it is on no link of this host"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			conf, err := loadtestConfig(e, c)
			if err != nil {
				return err
			}
			return runLoadtest(c.Context, e, conf, c.Bool("json"))
		},
	}
}

// What the peers offer: the proposals of the sample configuration, and those
// that a client is most likely to have.
var (
	loadProposals    = []string{"aes256gcm16-prfsha384-x25519", "aes128gcm16-prfsha256-x25519", "aes256-sha256-ecp256"}
	loadESPProposals = []string{"aes256gcm16-esn-noesn", "aes128gcm16-esn-noesn"}
)

func loadtestConfig(e env, c *cli.Context) (conf loadtest.Config, err error) {
	if err := loadtestNumbers(c); err != nil {
		return conf, err
	}
	conf = loadtest.Config{Peers: c.Int("peers"), Rate: c.Int("rate"), Hold: c.Duration("hold"), Timeout: c.Duration("timeout"),
		Identity: c.String("id"), GatewayID: c.String("gateway-id"),
		Proposals: c.StringSlice("proposal"), ESP: c.StringSlice("esp-proposal"), VirtualIP: c.Bool("vip")}
	if err := loadtestNames(&conf); err != nil {
		return conf, err
	}
	if err := loadtestAddresses(c, &conf); err != nil {
		return conf, err
	}
	if c.String("psk-file") == "" {
		return conf, usage("--psk-file: whose secret the gateway knows; a file of mode 0600, at least 20 characters")
	}
	psk, notes, err := config.ReadPSK(c.String("psk-file"))
	for _, note := range notes {
		fmt.Fprintln(e.stderr, note)
	}
	conf.PSK = psk.Bytes()
	return conf, err
}

// loadtestNumbers refuses what is no number of peers, rate or time.
func loadtestNumbers(c *cli.Context) error {
	const mostRate = 1_000_000
	switch {
	case c.Int("peers") < 1 || c.Int("peers") > mostPeers:
		return usage("--peers %d: want 1 to %d", c.Int("peers"), mostPeers)
	case c.IsSet("rate") && (c.Int("rate") < 1 || c.Int("rate") > mostRate):
		return usage("--rate %d: want 1 to %d a second; without it all call at once", c.Int("rate"), mostRate)
	case c.Duration("hold") < 0:
		return usage("--hold %v: want a time", c.Duration("hold"))
	case c.Duration("timeout") < 0:
		return usage("--timeout %v: want a time", c.Duration("timeout"))
	}
	return nil
}

// loadtestNames refuses identities and proposals that are none.
func loadtestNames(conf *loadtest.Config) error {
	if _, err := ike.ParseIdentity(conf.IdentityOf(conf.Peers - 1)); err != nil {
		return usage("--id %v", err)
	}
	if _, err := ike.ParsePattern(conf.GatewayID); err != nil {
		return usage("--gateway-id %v", err)
	}
	for _, p := range conf.Proposals {
		if err := ike.CheckIKEProposal(p); err != nil {
			return usage("--proposal %s: %v", plain(p), err)
		}
	}
	for _, p := range conf.ESP {
		if err := ike.CheckESPProposal(p); err != nil {
			return usage("--esp-proposal %s: %v", plain(p), err)
		}
	}
	return nil
}

// loadtestAddresses finds out whom to call, from where, and whether that may be.
func loadtestAddresses(c *cli.Context, conf *loadtest.Config) (err error) {
	text, err := oneArgument(c, "the address of a gateway")
	if err != nil {
		return err
	}
	conf.Gateway, err = netip.ParseAddr(text)
	conf.Gateway = conf.Gateway.Unmap()
	if err != nil || conf.Gateway.Zone() != "" || conf.Gateway.IsUnspecified() || conf.Gateway.IsMulticast() {
		return usage("%s: want the address of a gateway, as 198.51.100.1", plain(text))
	}
	if conf.Remote, err = loadtestRemote(c, conf.Gateway); err != nil {
		return err
	}
	from, err := loadtestFrom(c, conf)
	if err != nil {
		return err
	}
	reach, err := loadtest.ReachOf(conf.Gateway, from)
	if err != nil {
		return err
	}
	if reach.Beyond != "" && !c.Bool("i-own-this-gateway") {
		return usage("%v is on no link of this host: the way leads by %s; --i-own-this-gateway says that it is yours to try", conf.Gateway, reach.Beyond)
	}
	if conf.Sources == nil {
		conf.Sources = []netip.Addr{reach.Source}
	}
	return nil
}

// loadtestRemote is what the tunnels are to lead to.
func loadtestRemote(c *cli.Context, gateway netip.Addr) (netip.Prefix, error) {
	text := c.String("remote-ts")
	switch {
	case text == "" && gateway.Is4():
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
	case text == "":
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), nil
	}
	return prefixFlag("remote-ts", text)
}

// prefixFlag reads a prefix, or an address as a prefix of one.
func prefixFlag(name, text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if a, no := netip.ParseAddr(text); no == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, usage("--%s %s: want a prefix, as 10.8.0.0/16", name, plain(text))
	case p != p.Masked():
		return p, usage("--%s %s: it has bits behind the prefix length; write %v", name, plain(text), p.Masked())
	}
	return p, nil
}

// loadtestFrom fills in the addresses that the peers call from, where they are
// given, and returns one of them.
func loadtestFrom(c *cli.Context, conf *loadtest.Config) (some netip.Addr, err error) {
	if !c.IsSet("from") {
		return some, nil
	}
	p, err := prefixFlag("from", c.String("from"))
	switch {
	case err != nil:
		return some, err
	case p.Addr().Is4() != conf.Gateway.Is4():
		return some, usage("--from %v: not of the same family as %v", p, conf.Gateway)
	case p.Contains(conf.Gateway):
		return some, usage("--from %v: %v itself is in it", p, conf.Gateway)
	}
	conf.Sources = loadtest.Hosts(p, conf.Peers)
	foreign, err := loadtest.Foreign(conf.Sources)
	if err == nil && foreign.IsValid() {
		err = usage("--from %v: %v is not an address of this host, so no answer would come here; make it one: ip route add local %v dev lo", p, foreign, p)
	}
	return conf.Sources[0], err
}

// runLoadtest runs it and prints what came of it.
func runLoadtest(ctx context.Context, e env, conf loadtest.Config, json bool) error {
	bar := newBar(e)
	conf.Progress = bar.show
	report, err := loadtest.Run(ctx, conf)
	bar.clear()
	if err != nil && report.Peers == 0 {
		return err
	}
	print := renderLoadtest
	if json {
		print = func(w io.Writer, r loadtest.Report) error { return printJSON(w, r) }
	}
	if err := print(e.stdout, report); err != nil {
		return err
	}
	return notAllUp(ctx, report, err)
}

// notAllUp is nil only if all are.
func notAllUp(ctx context.Context, r loadtest.Report, err error) error {
	switch {
	case err != nil:
		return err
	case r.Up == r.Peers:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: %s of %s up", thousands(r.Up), count(r.Peers, "peer"))
	}
	return fmt.Errorf("%s of %s not up", thousands(r.Peers-r.Up), count(r.Peers, "peer"))
}
