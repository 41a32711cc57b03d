package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ikepulse/ikepulse/cmd/internal/control"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/maps"
)

// api is what the control socket offers.
func (d *daemon) api() control.API {
	return control.API{
		Status:    func(ctx context.Context) (any, error) { return d.status(ctx) },
		Peers:     func(ctx context.Context) (any, error) { return d.peers(ctx) },
		SAs:       d.sas,
		Events:    d.tellEvents,
		Initiate:  d.initiate,
		Terminate: d.gateway.Terminate,
		Probe:     d.gateway.Probe,
		Detach:    d.giveUp,
	}
}

func (d *daemon) status(ctx context.Context) (*Status, error) {
	st := &Status{Instance: d.Names.Instance, State: Healthy,
		Daemon: &Daemon{Version: d.Version, PID: os.Getpid(), Process: describeProcess(), Dataplane: d.dataplane(), Barriers: d.guard.status(),
			Capacity: d.Config.XDP.Capacity, Untracked: d.ledger.Untracked(), XDPEvents: d.events.count()}}
	var err error
	if st.IKE, err = d.gateway.Status(ctx); err != nil {
		return nil, err
	}
	if st.XDP, err = d.describeXDP(); err != nil {
		return nil, err
	}
	if d.xdp == nil {
		st.Left = d.left()
	}
	for _, s := range d.sockets {
		c := s.Counters()
		st.Sockets = append(st.Sockets, Socket{s.Local(), c.IKE, c.ESP, c.Keepalives, c.Short, c.ReadErrors, c.Sent, c.SendErrors})
	}
	if st.Problems = d.problems(st); len(st.Problems) > 0 {
		st.State = Degraded
	}
	return st, nil
}

// problems says in what a running daemon is not as it should be, and what to
// do about it.
func (d *daemon) problems(st *Status) []string {
	all := []string{}
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	all = append(all, d.presence.last().problems()...)
	all = append(all, ipv6Problems(d.ipv6Off, d.Config.Pools)...)
	all = append(all, d.xdpProblems(st.XDP)...)
	all = append(all, leftProblems(st.Left)...)
	all = append(all, st.Barriers.problems()...)
	if p := d.reverseProblem(); p != "" {
		add("%s", p)
	}
	if p := d.slotProblem(st, bootTime()); p != "" {
		add("%s", p)
	}
	if p := d.storeProblem(); p != "" {
		add("%s", p)
	}
	if h := &st.IKE.Handshakes; h.HalfOpen >= h.Max {
		add("all %d handshakes that there may be at once are under way: who comes now has no answer; half_open.max allows more", h.Max)
	}
	all = append(all, downProblems(&st.IKE)...)
	if n := st.IKE.Counters["panics"] + st.IKE.Counters["key_exchange_panics"]; n > 0 {
		add("%d errors of the program itself were contained: see the log", n)
	}
	if err := d.clockError.Load(); err != nil {
		add("the clock of the maps cannot be read: %v", *err)
	}
	if err := d.events.problem(); err != nil {
		add("what XDP tells of cannot be read: %v; a peer whose address has changed is asked no sooner than one who is silent; restart the daemon", err)
	}
	for _, s := range d.sockets {
		if err := s.Bypass(); err != nil {
			add("%v: a policy of this host may swallow our packets", err)
		}
	}
	return all
}

// peers are the IKE SAs, each with the keepalives of its address.
func (d *daemon) peers(ctx context.Context) ([]Peer, error) {
	list, err := d.gateway.Peers(ctx)
	if err != nil {
		return nil, err
	}
	known, err := d.keepalives()
	out := make([]Peer, 0, len(list))
	for _, p := range list {
		out = append(out, Peer{p, known[maps.Tuple{Local: p.Local, Peer: p.Remote}]})
	}
	return out, err
}

// keepalives are those that XDP has counted, by where they came from.
func (d *daemon) keepalives() (map[maps.Tuple]*Keepalives, error) {
	if d.xdp == nil {
		return nil, nil
	}
	known := map[maps.Tuple]*Keepalives{}
	tracked, err := TrackedPeers(d.xdp.Maps())
	for i, t := range tracked {
		known[maps.Tuple{Local: t.Local, Peer: t.Remote}] = &tracked[i].Keepalives
	}
	return known, err
}

// sas are the tunnels, each with the alarm that XDP may have raised.
func (d *daemon) sas(ctx context.Context) (any, error) {
	list, err := d.gateway.SAs(ctx)
	if err != nil {
		return nil, err
	}
	moved, err := d.moved()
	for i := range list {
		switch sa := &list[i]; {
		case sa.Alarm != "":
		case moved[sa.InSPI]:
			sa.Alarm = alarmMoved
		case d.untracked(sa):
			sa.Alarm = alarmUntracked
		}
	}
	return append([]ike.SA{}, list...), err // none are [], not null
}

func (d *daemon) tellEvents(ctx context.Context, started func() error, emit func(any) error) error {
	events := d.gateway.Events(ctx)
	if err := started(); err != nil {
		return err
	}
	for e := range events {
		if err := emit(e); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// initiate brings one tunnel up.
func (d *daemon) initiate(ctx context.Context, name string) (int, error) {
	err := d.gateway.Initiate(ctx, name)
	if errors.Is(err, ike.ErrUnknown) {
		return 0, fmt.Errorf("there is no connection %q; %s", name, d.callable())
	}
	if err != nil {
		return 0, err
	}
	return 1, nil
}

// callable names the connections that have an address to call.
func (d *daemon) callable() string {
	var names []string
	for _, c := range d.Config.Connections {
		if len(c.Remote.Addresses) > 0 {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return "none of the connections has an address to call"
	}
	const shown = 10
	if n := len(names); n > shown {
		names = append(names[:shown], fmt.Sprintf("and %d more", n-shown))
	}
	return "those that can be called: " + strings.Join(names, ", ")
}
