package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/loader"
)

// attached is what attach has done.
type attached struct {
	*gateway.XDP
	done, before []loader.Attachment
	from         string // what says which addresses are ours
	noTables     error  // why cat shows nothing
}

// renderAttached says what is so now, and what surprises people about it.
func renderAttached(w io.Writer, a attached) error {
	var p page
	for _, on := range a.done {
		already := ""
		if slices.ContainsFunc(a.before, func(b loader.Attachment) bool { return b.LinkID == on.LinkID }) {
			already = " already"
		}
		fmt.Fprintf(&p, "%s: attached%s, %s, prog %d ikepulse_xdp%s\n", on.Interface, already, on.Mode, on.ProgramID, because(on.Note))
		if on.KeepsTags {
			fmt.Fprintf(&p, "%s: its VLAN offload is off until it is detached, so that answers keep their tags\n", on.Interface)
		}
	}
	var names []string
	for _, address := range a.Addresses {
		names = append(names, address.String())
	}
	p.line("ours", "%s (%s); packets to any other address pass", strings.Join(names, ", "), a.from)
	interval := (time.Duration(a.AnswerIntervalMS) * time.Millisecond).Round(time.Second)
	switch a.Keepalive {
	case "answer":
		p.line("keepalives", "answered, each peer once in %s at most; strangers' are dropped", setting(interval))
	case "absorb":
		p.line("keepalives", "counted and dropped")
	default:
		p.line("keepalives", "counted and passed to the host")
	}
	p.line("room", "%s; all of it is pinned in %s", count(a.Capacity, "tunnel"), a.Pins)
	if a.noTables != nil {
		p.line("tables", "none: %v", a.noTables)
	} else {
		p.line("tables", "cat %s/sas, or peers or stats there", a.Pins)
	}
	p.goodToKnow(a)
	return p.to(w)
}

func because(note string) string {
	if note == "" {
		return ""
	}
	return " (" + note + ")"
}

// goodToKnow is what an operator would otherwise find out the hard way.
func (p *page) goodToKnow(a attached) {
	p.WriteString("\ngood to know:\n")
	if a.Keepalive != "pass" {
		p.WriteString("- tcpdump on this host no longer sees the keepalives that XDP takes: ikepulse stats\n" +
			"- nor do they refresh this host's own conntrack entries\n")
	}
	if slices.ContainsFunc(a.done, func(on loader.Attachment) bool { return on.Mode != "native" }) {
		p.WriteString("- generic mode works after the driver: it saves less, and sees what GRO and LRO have merged\n")
	} else {
		p.WriteString("- some drivers reset the link for it, and limit MTU, LRO and queues while it is there\n")
	}
	if a.Keepalive == "answer" {
		p.WriteString("- make VLANs first: where the NIC takes their tags off an answer would go out without, and attach says so\n")
	}
	p.WriteString("- it stays after this command and after the daemon: ikepulse detach\n")
}

// renderChecked is what check says of a good configuration.
func renderChecked(w io.Writer, c checked) error {
	var p page
	cfg := c.cfg
	fmt.Fprintf(&p, "%s is good: %s, %s, %s\n", c.file, count(len(cfg.Connections), "connection"), count(len(cfg.Pools), "pool"),
		count(len(cfg.Secrets), "secret"))
	for _, n := range cfg.Notes {
		p.line("note", "%s", n)
	}
	whole := wholePrefixes(cfg)
	for _, text := range whole[:min(len(whole), maxNamed)] {
		p.line("note", "%s", text)
	}
	if more := len(whole) - maxNamed; more > 0 {
		p.line("note", "%s more like it", count(more, "remote_ts"))
	}
	var names []string
	for _, a := range cfg.Listen.Addresses {
		names = append(names, a.String())
	}
	p.line("listen", "%s; event loops: %d", strings.Join(names, ", "), cfg.Shards)
	p.line("capacity", "%s: %s of maps from the start, up to %s of records in /run", count(cfg.XDP.Capacity, "tunnel"),
		size(c.memory.Maps), size(c.memory.Records))
	p.mtus(cfg)
	p.names(cfg)
	p.probes(c.probes)
	for i, f := range c.host {
		if i == 0 {
			p.WriteString("\nthis host\n")
		}
		p.line(f.Name, "%s", f.Text)
	}
	return p.to(w)
}

// wholePrefixes names the selectors that allow less of a network than is routed.
func wholePrefixes(cfg *config.Config) (all []string) {
	for _, conn := range cfg.Connections {
		for _, child := range conn.Children {
			for _, ts := range child.RemoteTS {
				if !ts.Dynamic && ts.Protocol != 0 {
					all = append(all, fmt.Sprintf("%s: remote_ts %s leads all of %s into the tunnel, which drops the rest", conn.Name, ts, ts.Prefix))
				}
			}
		}
	}
	return all
}

// probes is what a full gateway sends.
func (p *page) probes(r rate) {
	var parts []string
	if r.maxSuppress > 0 {
		parts = append(parts, fmt.Sprintf("%s/s forced by max_suppress %s", thousands(int64(r.forced+0.5)), setting(r.maxSuppress)))
	}
	if r.delay > 0 {
		parts = append(parts, fmt.Sprintf("%s/s if all are silent (delay %s)", thousands(int64(r.idle+0.5)), setting(r.delay)))
	}
	if len(parts) == 0 {
		p.line("probes", "none: DPD is off")
		return
	}
	p.line("probes", "with every tunnel up: %s", strings.Join(parts, ", "))
}

// mtus are those that the configuration sets, the smallest first.
func (p *page) mtus(cfg *config.Config) {
	by := map[int][]string{}
	for _, c := range cfg.Connections {
		if c.MTU != 0 {
			by[c.MTU] = append(by[c.MTU], c.Name)
		}
	}
	for _, size := range slices.Sorted(maps.Keys(by)) {
		names := by[size]
		whose := strings.Join(names, ", ")
		if len(names) > maxNamed {
			whose = count(len(names), "connection")
		}
		p.line("mtu", "%d inside the tunnels of %s; TCP's MSS is clamped to it", size, whose)
	}
}

// names says when those of peers are resolved, and what they do not do.
func (p *page) names(cfg *config.Config) {
	named := 0
	for _, c := range cfg.Connections {
		names := c.Remote.Names()
		if len(names) == 0 {
			continue
		}
		if named++; named > maxNamed {
			continue
		}
		when := "when ikepulse initiate calls"
		if slices.ContainsFunc(c.Children, func(ch config.Child) bool { return ch.StartAction == "start" }) {
			when = "at each call of"
		}
		p.line("names", "%s: resolved %s %s; a name pins nobody, so its peer may call from anywhere", strings.Join(names, ", "), when, c.Name)
	}
	if named > maxNamed {
		p.line("names", "%s more likewise", count(named-maxNamed, "connection"))
	}
}

// maxNamed is how many connections a line names.
const maxNamed = 4
