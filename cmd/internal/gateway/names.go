package gateway

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
)

// runDir holds what an instance keeps while it runs. On a host it is a tmpfs.
const runDir = "/run/ikepulse"

// Names are the places that belong to one instance alone, so that two never
// touch each other's.
type Names struct {
	Instance string
	Socket   string // the control socket
	Lock     string // held by the daemon
	Records  string // of the SAs
	TUN      string // the interface
	Table    int    // of routes
}

// mark is on what the instance itself sends.
func (n Names) mark() uint32 { return uint32(n.Table) }

// NamesOf returns an instance's places. "default" is the instance that is meant
// when none is named.
func NamesOf(instance string) Names {
	n := Names{Instance: instance, TUN: "ikepulse", Table: 4500,
		Socket:  filepath.Join(runDir, instance+".sock"),
		Lock:    filepath.Join(runDir, instance+".lock"),
		Records: filepath.Join(runDir, instance+".records")}
	if instance == "default" {
		n.Socket = filepath.Join(runDir, "control.sock")
		return n
	}
	h := fnv.New32a()
	h.Write([]byte(instance))
	// A number that two instances are unlikely to share, away from those that
	// people choose.
	n.Table = 450_000 + int(h.Sum32()%100_000)
	const longest = 15 // IFNAMSIZ less the final NUL
	if n.TUN = "ike-" + instance; len(n.TUN) > longest {
		n.TUN = fmt.Sprintf("ike-%08x", h.Sum32())
	}
	return n
}
