package main

import (
	"net/netip"
	"slices"

	"github.com/urfave/cli/v2"
)

// who is whom a command is about: the name of a connection, an identity, an
// address, or an SPI of ours. The commands that act leave it to the daemon; those
// that look must do without him.
type who string

// everybody is meant where nobody is named, too.
const everybody who = "*"

const whoText = "the name of a connection, a peer's identity or address, or an SPI of ours as\n" +
	`"ikepulse sas" and "ikepulse peers --json" show it`

// whoOf is for commands that take one or none.
func whoOf(c *cli.Context) (who, error) {
	switch c.NArg() {
	case 0:
		return everybody, nil
	case 1:
		return who(c.Args().First()), nil
	}
	return "", usage("%s takes one argument at most: a connection, a peer, an address or an SPI", c.Command.Name)
}

// is tells whether it is somebody at an address, with these names.
func (w who) is(at netip.AddrPort, names ...string) bool {
	return w == everybody || w != "" && slices.Contains(append(names, at.String(), at.Addr().String()), string(w))
}
