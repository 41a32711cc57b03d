package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/loader"
)

// page collects lines of a heading and a text.
type page struct{ strings.Builder }

func (p *page) line(heading, format string, args ...any) {
	fmt.Fprintf(p, "%-10s %s\n", heading, fmt.Sprintf(format, args...))
}

func (p *page) to(w io.Writer) error {
	_, err := io.WriteString(w, p.String())
	return err
}

// renderStatus is the answer to "how is it?".
func renderStatus(w io.Writer, st *gateway.Status) error {
	var p page
	head := []string{"ikepulse " + version, st.State}
	if st.Daemon != nil {
		head = []string{"ikepulse " + plain(st.Version), fmt.Sprintf("pid %d", st.PID), "up " + spanMS(st.IKE.UpMS), st.State}
	}
	if st.Instance != loader.DefaultInstance {
		head = slices.Insert(head, 1, "instance "+st.Instance)
	}
	fmt.Fprintln(&p, strings.Join(head, "   "))
	for _, problem := range st.Problems {
		p.line("problem", "%s", problem)
	}
	if st.Daemon != nil {
		p.tunnels(st.Daemon)
		p.handshakes(&st.IKE)
		p.refused(st.IKE.Counters)
		p.barriers(&st.Barriers)
	}
	p.xdp(st)
	if st.Daemon != nil {
		p.line("evidence", "%s, authenticated by our own decryption", st.Dataplane.Kind)
		p.line("probes", "%s sent, %s not needed", thousands(st.IKE.Counters["probes_sent"]), thousands(st.IKE.Counters["probes_spared"]))
	}
	return p.to(w)
}

func (p *page) tunnels(d *gateway.Daemon) {
	st, c := &d.IKE, d.IKE.Counters
	up := thousands(st.Up) + " up"
	if st.Childless > 0 {
		up += "   " + thousands(st.Childless) + " without a Child SA"
	}
	p.line("tunnels", "%s   %s connecting   %s dying   of %s        since the start: +%s -%s (%s deleted, %s dead, %s replaced)   %s auth failed",
		up, thousands(st.Connecting), thousands(st.Deleting), thousands(d.Capacity),
		thousands(c["established"]), thousands(c["deleted"]+c["dead"]+c["replaced"]),
		thousands(c["deleted"]), thousands(c["dead"]), thousands(c["replaced"]), thousands(c["auth_failed"]))
}

// refused is how many were, on either side, by the rule, the most first.
func (p *page) refused(counters map[string]uint64) {
	var texts []string
	for _, name := range slices.SortedFunc(maps.Keys(counters), func(a, b string) int {
		return cmp.Or(cmp.Compare(counters[b], counters[a]), strings.Compare(a, b))
	}) {
		if words := ike.RefusalWords(name); words != "" && counters[name] > 0 {
			texts = append(texts, fmt.Sprintf("%s: %s", words, thousands(counters[name])))
		}
	}
	if len(texts) > 0 {
		p.line("refused", "since the start: %s", strings.Join(texts, "; "))
	}
}

// barriers are what keeps packets out of the clear.
func (p *page) barriers(b *gateway.Barriers) {
	what := enumerated(b.Kinds)
	switch {
	case b.Unprotected == "pass":
		what = "none (unprotected: pass): what a tunnel covers goes in the clear while the tunnel is missing"
	case b.Networks == 0:
		what += ": no network is covered"
	default:
		what += ": nothing of " + count(b.Networks, "network") + " passes but by tunnels"
	}
	p.line("barriers", "%s", what)
}

// enumerated joins "a", "b" and "c" as one writes them.
func enumerated(all []string) string {
	n := len(all)
	if n < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:n-1], ", ") + " and " + all[n-1]
}

// handshakes are those whose peers have not proved who they are, what was done
// to serve those who will, and how long anything else has waited meanwhile.
func (p *page) handshakes(st *ike.Status) {
	h, c := &st.Handshakes, st.Counters
	texts := []string{fmt.Sprintf("%s half-open of %s", thousands(h.HalfOpen), thousands(h.Max))}
	if h.Cookies {
		texts = append(texts, "everybody is asked for a cookie")
	}
	if h.Waiting > 0 {
		texts = append(texts, fmt.Sprintf("%s wait, the next since %d ms", count(h.Waiting, "key exchange"), h.WaitingMS))
	}
	p.line("handshakes", "%s", strings.Join(texts, "   "))
	if parts := nonZero([]part{
		{"cookies", c["cookies_demanded"]}, {"evicted", c["half_open_evicted"]},
		{"shed (too late)", c["shed_late"]}, {"shed (too many)", c["shed_full"]}, {"shed (no cookie)", c["shed_unproven"]},
		{"beyond half_open.max", c["half_open_full"]}, {"beyond half_open.per_source", c["half_open_source_full"]},
		{"bad public values", c["bad_public_values"]}, {"refusals delayed", c["refusals_delayed"]},
	}); len(parts) > 0 {
		p.line("", "since the start: %s", strings.Join(parts, ", "))
	}
	for _, s := range h.Sources {
		if s.TurnedAway > 0 {
			p.line("limited", "%s: %s turned away in the last minutes; it has %s half-open of the %s that it may have (half_open.per_source: %d)",
				s.Source, thousands(s.TurnedAway), thousands(s.HalfOpen), thousands(s.Allowed), h.PerSource)
		}
	}
	if len(st.LagMaxUS) > 0 {
		p.line("loops", "%s; late by %.1f ms at p99 of the last minute, by %.1f ms at most since the start", count(len(st.LagMaxUS), "loop"),
			float64(slices.Max(st.LagP99US))/1000, float64(slices.Max(st.LagMaxUS))/1000)
	}
}

func (p *page) xdp(st *gateway.Status) {
	x := st.XDP
	if x == nil {
		p.withoutXDP(st)
		return
	}
	for _, a := range x.Attachments {
		p.line("xdp", "%s", attachmentText(a)+", keepalive: "+x.Keepalive)
	}
	if len(x.Attachments) == 0 {
		p.line("xdp", "attached to no interface, keepalive: %s", x.Keepalive)
	}
	switch {
	case x.Follow && st.State != gateway.NotRunning:
		p.line("maps", "%s of another daemon; pinned in %s", count(x.SPIs, "SPI"), x.Pins)
	case st.Daemon == nil:
		p.line("maps", "%s that no daemon follows; pinned in %s", count(x.SPIs, "SPI"), x.Pins)
	}
	c := frames(x)
	p.line("keepalives", "%s", sum(x, []part{
		{"answered", c["keepalive_answered"]}, {"absorbed", c["keepalive_absorbed"]}, {"passed", c["keepalive_passed"]},
		{"limited", c["keepalive_limited"] + c["keepalive_over_budget"]},
		{"from peers not behind a NAT", c["keepalive_not_natted"]},
		{"from strangers (dropped)", c["stranger_dropped"]}, {"from strangers (passed)", c["stranger_passed"]}}))
	p.line("esp", "%s", sum(x, []part{
		{"known SPI", outcome(c, "known")},
		{"known SPI from another address", outcome(c, "moved")},
		{"unknown", outcome(c, "unknown")}}))
}

// outcome sums what became of packets with an SPI, however they carry it.
func outcome(c map[string]uint64, name string) (n uint64) {
	for _, kind := range []string{"esp_udp_", "frag_esp_udp_", "esp_", "ah_"} {
		n += c[kind+name]
	}
	return n
}

func (p *page) withoutXDP(st *gateway.Status) {
	if st.Daemon == nil || len(st.Left) == 0 {
		p.line("xdp", "not loaded")
		return
	}
	for _, a := range st.Left {
		p.line("xdp", "%s, left by an earlier run", attachmentText(a))
	}
}

func attachmentText(a gateway.Attachment) string {
	if a.Gone {
		return fmt.Sprintf("%s: %s", a.Interface, a.Note)
	}
	s := fmt.Sprintf("%s %s, prog %d ikepulse_xdp", a.Interface, a.Mode, a.ProgramID)
	if a.AttachedMS != nil {
		s += ", attached " + spanMS(*a.AttachedMS)
	}
	if a.VLANOffload != "" {
		s += ", VLAN offload " + a.VLANOffload
	}
	return s
}

func frames(x *gateway.XDP) map[string]uint64 {
	all := map[string]uint64{}
	for _, c := range x.Counters {
		all[c.Name] = c.Frames
	}
	return all
}

// part is a number and what it is of.
type part struct {
	what string
	n    uint64
}

func nonZero(parts []part) (texts []string) {
	for _, p := range parts {
		if p.n > 0 {
			texts = append(texts, thousands(p.n)+" "+p.what)
		}
	}
	return texts
}

// sum is a total with its parts, those that are not 0.
func sum(x *gateway.XDP, parts []part) string {
	var total uint64
	for _, p := range parts {
		total += p.n
	}
	texts := nonZero(parts)
	s := fmt.Sprintf("%s in %s", thousands(total), spanMS(x.LoadedMS))
	if len(texts) > 0 {
		s += ": " + strings.Join(texts, ", ")
	}
	return s
}

// renderSAs is a line an inbound SPI.
func renderSAs(w io.Writer, terminal bool, rows []saRow) error {
	var lines [][]string
	for _, r := range rows {
		lines = append(lines, []string{orDash(plain(r.Peer)), endpoint(r.From), orDash(r.InSPI), orDash(r.OutSPI),
			ago(r.UpMS), ago(r.IdleMS), proof(r.Liveness), next(r.Liveness, "probe"), orDash(r.Alarm)})
	}
	return table(w, terminal, []string{"PEER", "FROM", "SPI-IN", "SPI-OUT", "UP", "IDLE", "PROOF", "NEXT", "ALARM"}, lines)
}

// proof is when a peer last proved that he lives, and by what.
func proof(l ike.Liveness) string {
	if l.ProofMS == nil {
		return "-"
	}
	return strings.TrimSpace(l.Proof + " " + spanMS(*l.ProofMS))
}

// next is what happens to a peer who stays silent, and when.
func next(l ike.Liveness, request string) string {
	switch {
	case l.Outstanding:
		return fmt.Sprintf("%s %d/%d", request, l.Tries, l.MaxTries)
	case l.NextMS != nil:
		return "in " + spanMS(*l.NextMS)
	}
	return "-"
}

// renderPeers is a line an IKE SA.
func renderPeers(w io.Writer, terminal bool, rows []peerRow) error {
	var lines [][]string
	for _, r := range rows {
		request := "try"
		if r.State == "established" || r.State == "no child" {
			request = "probe" // any request is one
		}
		lines = append(lines, []string{orDash(plain(r.Peer)), orDash(plain(r.Connection)), endpoint(r.From), orDash(r.State),
			nat(r), ago(r.UpMS), proof(r.Liveness), next(r.Liveness, request), keepalives(r.keepalives)})
	}
	return table(w, terminal, []string{"PEER", "CONNECTION", "FROM", "STATE", "NAT", "UP", "PROOF", "NEXT", "KEEPALIVES"}, lines)
}

// nat is who stands behind one.
func nat(r peerRow) string {
	switch {
	case r.PeerNATted && r.LocalNATted:
		return "both"
	case r.PeerNATted:
		return "peer"
	case r.LocalNATted:
		return "we"
	}
	return "-"
}

func keepalives(k *gateway.Keepalives) string {
	if k == nil {
		return "-"
	}
	s := fmt.Sprintf("%s (%s answered)", thousands(k.Received), thousands(k.Answered))
	if k.ReceivedMS != nil {
		s += ", " + spanMS(*k.ReceivedMS) + " ago"
	}
	return s
}

// renderStats is a line a counter; programs get its digits alone.
func renderStats(w io.Writer, terminal bool, stats []stat, all bool) error {
	var lines [][]string
	for _, s := range stats {
		if s.Count == 0 && !all {
			continue
		}
		lines = append(lines, []string{s.Where, s.Name, digits(s.Count, terminal), orDash(s.Verdict)})
	}
	return table(w, terminal, []string{"WHERE", "COUNTER", "COUNT", "VERDICT"}, lines)
}

// renderEvent is a line an event.
func renderEvent(w io.Writer, e ike.Event) error {
	if r := e.Refusal; r != nil {
		_, err := fmt.Fprintf(w, "%s  %s\n", e.Time.Local().Format(time.TimeOnly), printable(r.Line()))
		return err
	}
	words := []string{e.Time.Local().Format(time.TimeOnly), fmt.Sprintf("%-14s", plain(strings.ReplaceAll(e.Kind, "_", " "))),
		orDash(plain(e.Peer)), orDash(plain(e.Connection)), endpoint(e.Remote)}
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch {
	case e.Child != nil:
		add("%s/%s %s === %s", e.Child.InSPI, e.Child.OutSPI, strings.Join(e.Child.LocalTS, " "), strings.Join(e.Child.RemoteTS, " "))
	case e.Kind == "established":
		add("%s", plain(e.Suite))
	case e.Try > 0:
		add("try %d", e.Try)
	case e.From.IsValid():
		add("a packet from %s", origin(e.From))
	}
	if e.Reason != "" {
		add("%s", e.Reason)
	}
	if e.SilentMS > 0 {
		add("silent for %s", spanMS(e.SilentMS))
	}
	for _, s := range []string{e.Notify, e.Error} {
		if s != "" {
			add("%s", plain(s))
		}
	}
	_, err := fmt.Fprintln(w, strings.Join(words, "  "))
	return err
}
