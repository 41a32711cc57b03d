package control

import (
	"os"
	"slices"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
)

// right is what somebody may do; each holds the ones before it.
type right int

const (
	nothing right = iota
	reading
	acting
)

// access is who may do what: root and the daemon's own user everything, others
// by their groups.
type access struct {
	act, read *config.Group // nil: none
	euid      uint32        // the daemon's
}

func newAccess(c config.Control) access {
	return access{c.Group, c.ReadGroup, uint32(os.Geteuid())}
}

// of is the right of a caller. File modes do not count: they let in more than
// should be, where two groups share one socket.
func (a access) of(c caller) right {
	member := func(g *config.Group) bool { return g != nil && slices.Contains(c.groups, g.ID) }
	switch {
	case a.trusts(c), member(a.act):
		return acting
	case member(a.read):
		return reading
	}
	return nothing
}

// trusts is true for those whom no other user may keep out.
func (a access) trusts(c caller) bool { return c.uid == 0 || c.uid == a.euid }

// loginCounts is added where a group may help: the kernel tells a process's
// groups, and not what /etc/group has by now.
const loginCounts = "; membership counts from the next login on"

// denial tells a caller with no right who has one.
func (a access) denial() string {
	switch {
	case a.act != nil && a.read != nil:
		return "permission denied: only root and members of group " + a.act.Name + " may act here, and members of group " + a.read.Name + " may read" + loginCounts
	case a.act != nil:
		return "permission denied: only root and members of group " + a.act.Name + " may use this socket" + loginCounts
	case a.read != nil:
		return "permission denied: only root may act here, and members of group " + a.read.Name + " may read" + loginCounts
	}
	return "permission denied: only root may use this socket"
}

// readerDenial tells a caller who may only read who may act.
func (a access) readerDenial() string {
	who := "root may act"
	if a.act != nil {
		who = "root and members of group " + a.act.Name + " may act"
	}
	return "permission denied: members of group " + a.read.Name + " may only read; " + who
}
