package charon

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// SA is an IKE SA as charon lists it. What is not negotiated yet is zero.
type SA struct {
	Connection                 string
	State                      string // ESTABLISHED, CONNECTING, …
	Local, Remote              netip.AddrPort
	LocalID, RemoteID          string
	Initiator                  bool // charon is
	InitiatorSPI, ResponderSPI uint64
	NATLocal, NATRemote        bool
	Encr                       string // AES_GCM_16, …
	EncrBits                   int
	Integ, PRF, DH             string
	LocalVIPs, RemoteVIPs      []string
	Children                   []Child
}

// Child is a Child SA; in and out are from charon's side.
type Child struct {
	Name                 string
	State                string // INSTALLED, REKEYING, DELETED, …
	Encap                bool   // in UDP
	SPIIn, SPIOut        uint32
	Encr                 string
	EncrBits             int
	Integ, DH            string
	ESN                  bool
	BytesIn, PacketsIn   uint64
	BytesOut, PacketsOut uint64
	LocalTS, RemoteTS    []string
}

// SAs returns the daemon's IKE SAs with their Children.
func (d *Daemon) SAs() ([]SA, error) {
	out, err := d.Swanctl("--list-sas", "--raw", "--pretty")
	if err != nil {
		return nil, err
	}
	return parseSAs(out)
}

// section is one level of vici's messages.
type section struct {
	name     string
	values   map[string]string
	lists    map[string][]string
	sections []*section
	err      error // the first value that could not be read
}

// parseSAs reads the output of swanctl --list-sas --raw --pretty: an event
// "list-sa" for each SA, and a reply at the end.
func parseSAs(text string) ([]SA, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	var sas []SA
	for _, event := range root.sections {
		for _, s := range event.sections {
			sa := s.sa()
			if s.err != nil {
				return nil, fmt.Errorf("SA %s: %w", s.name, s.err)
			}
			sas = append(sas, sa)
		}
	}
	return sas, nil
}

// parse reads lines of "name {", "}", "key = value", "key = [", items and "]".
func parse(text string) (*section, error) {
	open := []*section{newSection("")}
	list := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		top := open[len(open)-1]
		key, value, assigned := strings.Cut(line, " = ")
		name, opens := strings.CutSuffix(line, " {")
		switch {
		case line == "":
		case list != "" && line == "]":
			list = ""
		case list != "":
			top.lists[list] = append(top.lists[list], line)
		case line == "}" && len(open) > 1:
			open = open[:len(open)-1]
		case assigned && value == "[":
			list = key
		case assigned:
			top.values[key] = value
		case opens:
			s := newSection(name)
			top.sections = append(top.sections, s)
			open = append(open, s)
		default:
			return nil, fmt.Errorf("vici output: %q", line)
		}
	}
	if len(open) != 1 || list != "" {
		return nil, fmt.Errorf("vici output ends within %q", open[len(open)-1].name)
	}
	return open[0], nil
}

func newSection(name string) *section {
	return &section{name: name, values: make(map[string]string), lists: make(map[string][]string)}
}

func (s *section) sa() SA {
	sa := SA{
		Connection: s.name, State: s.values["state"],
		Local: s.endpoint("local"), Remote: s.endpoint("remote"),
		LocalID: s.values["local-id"], RemoteID: s.values["remote-id"],
		Initiator:    s.yes("initiator"),
		InitiatorSPI: s.number("initiator-spi", 16, 64), ResponderSPI: s.number("responder-spi", 16, 64),
		NATLocal: s.yes("nat-local"), NATRemote: s.yes("nat-remote"),
		Encr: s.values["encr-alg"], EncrBits: int(s.number("encr-keysize", 10, 16)),
		Integ: s.values["integ-alg"], PRF: s.values["prf-alg"], DH: s.values["dh-group"],
		LocalVIPs: s.lists["local-vips"], RemoteVIPs: s.lists["remote-vips"],
	}
	for _, children := range s.sections {
		for _, c := range children.sections {
			sa.Children = append(sa.Children, c.child())
			if s.err == nil {
				s.err = c.err
			}
		}
	}
	return sa
}

func (s *section) child() Child {
	return Child{
		Name: s.values["name"], State: s.values["state"], Encap: s.yes("encap"),
		SPIIn: uint32(s.number("spi-in", 16, 32)), SPIOut: uint32(s.number("spi-out", 16, 32)),
		Encr: s.values["encr-alg"], EncrBits: int(s.number("encr-keysize", 10, 16)),
		Integ: s.values["integ-alg"], DH: s.values["dh-group"], ESN: s.values["esn"] == "1",
		BytesIn: s.number("bytes-in", 10, 64), PacketsIn: s.number("packets-in", 10, 64),
		BytesOut: s.number("bytes-out", 10, 64), PacketsOut: s.number("packets-out", 10, 64),
		LocalTS: s.lists["local-ts"], RemoteTS: s.lists["remote-ts"],
	}
}

func (s *section) yes(key string) bool { return s.values[key] == "yes" }

// number reads a value; one that is missing is zero.
func (s *section) number(key string, base, bits int) uint64 {
	value, ok := s.values[key]
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(value, base, bits)
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("%s: %w", key, err)
	}
	return n
}

// endpoint reads side's host and port; "%any" is zero.
func (s *section) endpoint(side string) netip.AddrPort {
	addr, err := netip.ParseAddr(s.values[side+"-host"])
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, uint16(s.number(side+"-port", 10, 16)))
}
