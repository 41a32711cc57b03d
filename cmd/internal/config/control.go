package config

import (
	"errors"
	"math"
	"os/user"
	"path/filepath"
	"strconv"
)

var controlKeys = block[Control]{
	{name: "socket", read: func(c *Control, v value) { c.Socket = v.socket() }},
	{name: "group", read: func(c *Control, v value) { c.Group = v.group() }},
	{name: "read_group", read: (*Control).readReadGroup},
}

// maxSocket is what the kernel's sockaddr_un holds, less the final NUL.
const maxSocket = 107

func (v value) socket() string {
	path, ok := v.text()
	switch {
	case !ok:
	case !filepath.IsAbs(path):
		v.fail("%s must be a path that begins with /", quoted(path))
	case len(path) > maxSocket:
		v.fail("longer than %d bytes", maxSocket)
	default:
		return filepath.Clean(path)
	}
	return ""
}

// readReadGroup comes behind group in the table.
func (c *Control) readReadGroup(v value) {
	c.ReadGroup = v.group()
	if c.Group != nil && c.ReadGroup != nil && c.Group.ID == c.ReadGroup.ID {
		v.fail("the same as control.group, whose members may act already; name another or leave the key out")
	}
}

// group is one of the host's, by its name or number, or nil if it is not. A
// number need not be in /etc/group: groups come from elsewhere, too.
func (v value) group() *Group {
	name, ok := v.text()
	if !ok {
		return nil
	}
	id := name
	if _, err := strconv.ParseUint(name, 10, 64); err != nil {
		if id, ok = v.groupNamed(name); !ok {
			return nil
		}
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil || n == math.MaxUint32 { // which stands for none
		v.fail("%s is not the number of a group", quoted(name))
		return nil
	}
	return &Group{printable(name), uint32(n)}
}

// groupNamed is the number of a group, as text. Without the right to read them
// it is unknown.
func (v value) groupNamed(name string) (id string, ok bool) {
	g, err := v.l.checks.Group(name)
	var none user.UnknownGroupError
	switch {
	case err == nil:
		return g.Gid, true
	case errors.As(err, &none):
		v.fail("no group %s on this host; create it, or give the number of one that is not in /etc/group", quoted(name))
	case v.l.unprivileged:
		v.l.note(v.pos(), v.key, "this host's groups cannot be read: "+err.Error())
	default:
		v.fail("this host's groups cannot be read: %v", err)
	}
	return "", false
}
