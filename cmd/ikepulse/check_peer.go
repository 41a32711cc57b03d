package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/ike"
)

// claimOf is the peer that check is asked about, if it is.
func claimOf(c *cli.Context) (claim ike.Claim, asked bool, err error) {
	if !c.IsSet("as") {
		if c.IsSet("from") || c.IsSet("to") {
			return claim, false, usage("--from and --to say more about a peer; name it with --as ID")
		}
		return claim, false, nil
	}
	if claim.ID, err = ike.ParseIdentity(c.String("as")); err != nil {
		return claim, true, usage("--as: %v", err)
	}
	if c.IsSet("to") {
		if claim.Asked, err = ike.ParseIdentity(c.String("to")); err != nil {
			return claim, true, usage("--to: %v", err)
		}
	}
	if c.IsSet("from") {
		claim.From, err = netip.ParseAddr(c.String("from"))
		if a := claim.From; err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			return claim, true, usage("--from %s: want the IP address of one host", plain(c.String("from")))
		}
	}
	return claim, true, nil
}

// checkPeer says what a peer gets; a refusal ends with an exit code.
func checkPeer(e env, file string, cfg *config.Config, claim ike.Claim) error {
	v := verdict{file: file, cfg: cfg, claim: claim}
	var err error
	if v.Choice, err = gateway.Choose(cfg, claim); err != nil {
		return err
	}
	if errors.Is(v.Refused, ike.ErrNoOwnIdentity) {
		claim.Asked = ike.Identity{}
		if v.unasked, err = gateway.Choose(cfg, claim); err != nil {
			return err
		}
	}
	if err := renderVerdict(e.stdout, v); err != nil || v.Refused == nil {
		return err
	}
	return &codeError{code: exitError}
}

// verdict is what check says of a peer.
type verdict struct {
	file  string
	cfg   *config.Config
	claim ike.Claim
	gateway.Choice
	unasked gateway.Choice // if he asked for one of us who has no connection for him
}

func renderVerdict(w io.Writer, v verdict) error {
	var p page
	who := v.claim.ID.String()
	if v.claim.From.IsValid() {
		who += " from " + v.claim.From.String()
	}
	if v.claim.Asked != (ike.Identity{}) {
		who += " to " + v.claim.Asked.String()
	}
	if v.Refused != nil {
		fmt.Fprintf(&p, "%s: %s is refused: %v\n", v.file, who, v.Refused)
		if conn := v.unasked.Connection; conn != nil {
			p.line("otherwise", "without --to it gets %s, as %s", conn.Name, conn.Local.ID)
		}
	} else {
		fmt.Fprintf(&p, "%s: %s gets %s\n", v.file, who, v.Connection.Name)
	}
	if v.Connection != nil {
		p.verdict(v)
	}
	return p.to(w)
}

// verdict is all that there is about the peer's connection.
func (p *page) verdict(v verdict) {
	conn := v.Connection
	p.line("connection", "%s, at %v: %s", conn.Name, conn.Pos, whyHis(conn.Remote.ID))
	for _, n := range v.cfg.Notes {
		if n.Key == "connections."+conn.Name {
			p.line("note", "%s", n)
		}
	}
	p.line("ours", "%s", conn.Local.ID)
	p.line("address", "%s", callsFrom(conn))
	for i, other := range v.Others {
		if i == maxNamed {
			p.line("others", "%s more for %s", count(len(v.Others)-i, "connection"), conn.Remote.ID)
			break
		}
		p.line("others", "%s is for %s, too: as %s, %s", other.Name, conn.Remote.ID, other.Local.ID, callsFrom(other))
	}
	switch {
	case v.Secret != nil:
		p.line("secret", "that of %s, in %s, at %v", whose(v.Secret), escaped(v.Secret.File), v.Secret.Pos)
	case errors.Is(v.Refused, ike.ErrNoSecret):
		p.line("secret", "none of %s and %s", conn.Local.ID, v.claim.ID)
	}
	p.line("proposals", "%s", strings.Join(conn.Proposals, ", "))
	p.line("unique", "%s; at most %s, and %s of a family", conn.Unique, count(conn.MaxSAs, "SA"), count(conn.MaxLeases, "lease"))
	for _, name := range conn.Pools {
		i := slices.IndexFunc(v.cfg.Pools, func(pool config.Pool) bool { return pool.Name == name })
		p.line("pool", "%s %s", name, v.cfg.Pools[i].Addresses)
	}
	for _, ch := range conn.Children {
		p.line("selectors", "%s: %s here, %s there", ch.Name, selectors(ch.LocalTS), selectors(ch.RemoteTS))
	}
}

// whyHis says why a connection is a peer's.
func whyHis(remote ike.Pattern) string {
	if _, exact := remote.Exact(); exact {
		return "it is for exactly this identity"
	}
	if remote == ike.Anybody {
		return "%any, and no other fits"
	}
	return remote.String() + " is the longest pattern that fits"
}

// callsFrom says where a connection takes calls from.
func callsFrom(c *config.Connection) string {
	pins := c.Remote.Pins()
	if len(pins) == 0 {
		return "from anywhere"
	}
	var names []string
	for _, a := range pins[:min(len(pins), maxNamed)] {
		names = append(names, a.String())
	}
	text := "only from " + strings.Join(names, ", ")
	if more := len(pins) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func whose(s *config.Secret) string {
	if s.Local == (ike.Identity{}) {
		return s.ID.String()
	}
	return s.Local.String() + " and " + s.ID.String()
}

func selectors(list []config.Selector) string {
	var out []string
	for _, s := range list {
		out = append(out, s.String())
	}
	return strings.Join(out, ", ")
}
