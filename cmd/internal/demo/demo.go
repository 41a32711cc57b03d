// Package demo plays the gateway's main job on one machine: a gateway, a NAT
// and three clients, each in a namespace of its own, with real daemons and a
// real XDP program. Every line that it prints stands for something that was
// read: an event of a daemon, a counter of the program, an answer that came.
// What does not come in time ends the demo, by the name of the claim.
package demo

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/lab"
)

// Sabotages are what a test may break, to see that the demo notices.
var Sabotages = []string{"xdp", "nat", "kill"}

// delay is the gateway's DPD delay, as its configuration has it.
const delay = 4 * time.Second

// Run plays the demo. It is to be called in namespaces that vanish with the
// process. self is the executable of the daemons; sabotage is "" or one of
// Sabotages.
func Run(ctx context.Context, out io.Writer, self, sabotage string) (err error) {
	p := &play{out: out, began: time.Now(), sabotage: sabotage}
	if p.stage, err = build(ctx, self, sabotage); err != nil {
		return err
	}
	p.say("gateway  running at %v; %d clients behind a NAT at %v; each in a network namespace", lab.GatewayAddr, len(names), lab.NATAddr)
	defer func() {
		if end := p.close(); err == nil {
			err = end
		}
	}()
	for _, c := range []struct {
		claim string
		limit time.Duration
		show  func(context.Context) error
	}{
		{"XDP is attached at the gateway", 10 * time.Second, p.attached},
		{"the clients connect through the NAT", 20 * time.Second, p.connect},
		{"packets pass the tunnels", 10 * time.Second, p.pass},
		{"XDP answers the NAT keepalives", 15 * time.Second, p.keepalives},
		{"nobody is probed while he sends", 30 * time.Second, p.busy},
		{"a silent peer is probed, and answers", 15 * time.Second, p.idle},
		{"a dead peer is found out and cleared away", 25 * time.Second, p.death},
		{"the others live on", 10 * time.Second, p.others},
	} {
		if err := p.play(ctx, c.claim, c.limit, c.show); err != nil {
			return err
		}
	}
	p.say("done")
	return nil
}

// play is the demo while it runs.
type play struct {
	*stage
	out      io.Writer
	began    time.Time
	sabotage string
	maps     *maps.Set    // the gateway's, from the pins
	vips     []netip.Addr // the clients' virtual addresses
	inSPIs   []uint32     // the gateway's inbound SPIs
	tuples   []maps.Tuple // where the gateway sees the clients
}

func (p *play) say(format string, args ...any) {
	fmt.Fprintf(p.out, "%5.1fs  %s\n", time.Since(p.began).Seconds(), fmt.Sprintf(format, args...))
}

// play shows one claim within its limit.
func (p *play) play(ctx context.Context, claim string, limit time.Duration, show func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := show(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return fmt.Errorf("not shown within %v: %s (%w)", limit, claim, err)
	}
	return fmt.Errorf("not so: %s: %w", claim, err)
}

// attached reads the gateway's pins.
func (p *play) attached(ctx context.Context) error {
	return p.gateway.ns.Do(func() error {
		i, err := loader.Open(p.gateway.name)
		if err != nil {
			return err
		}
		defer i.Close()
		list, err := i.Attachments()
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return fmt.Errorf("nothing is attached")
		}
		p.say("gateway  XDP on %s, %s, program %d; its maps are pinned in /sys/fs/bpf/ikepulse/%s",
			list[0].Interface, list[0].Mode, list[0].ProgramID, p.gateway.name)
		if p.maps, err = maps.OpenPinned("/sys/fs/bpf/ikepulse/" + p.gateway.name); err != nil {
			return err
		}
		if p.sabotage == "xdp" {
			return p.ikepulse(p.gateway.ns, nil, "--instance", p.gateway.name, "detach", lab.GatewayLink)
		}
		return nil
	})
}

// connect has the clients call, one after the other.
func (p *play) connect(ctx context.Context) error {
	for i, c := range p.clients {
		mark := p.diary.mark()
		if _, err := c.control.Act(ctx, "initiate", "office"); err != nil {
			return err
		}
		if err := p.connected(ctx, i, mark); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) connected(ctx context.Context, i, mark int) error {
	c, peer := p.clients[i], names[i]+"@example.org"
	// Both at the client: only the side behind the NAT can tell by itself.
	nat, err := p.diary.await(ctx, mark, func(e entry) bool {
		return told(c.name, "nat_detected", "")(e) && e.LocalNATted && e.Local.Port() == lab.NATTPort
	})
	if err != nil {
		return fmt.Errorf("%s found no NAT: %w", c.name, err)
	}
	up, err := p.diary.await(ctx, mark, told("gateway", "child_up", peer))
	if err != nil {
		return err
	}
	if up.Remote.Addr() != lab.NATAddr {
		return fmt.Errorf("the gateway sees %s at %v, and no NAT", c.name, up.Remote)
	}
	mine, err := p.diary.await(ctx, mark, told(c.name, "child_up", ""))
	if err != nil {
		return err
	}
	spi, err := strconv.ParseUint(up.Child.InSPI, 16, 32)
	if err != nil || len(mine.Child.VirtualIPs) != 1 {
		return fmt.Errorf("an odd Child SA: %+v, %+v", up.Child, mine.Child)
	}
	p.inSPIs = append(p.inSPIs, uint32(spi))
	p.vips = append(p.vips, mine.Child.VirtualIPs[0])
	p.tuples = append(p.tuples, maps.Tuple{Local: up.Local, Peer: up.Remote})
	p.say("%-8s IKE_SA_INIT: a NAT stands between; moved to port %d: %v is seen as %v", c.name, nat.Local.Port(), nat.Local, up.Remote)
	p.say("%-8s IKE_AUTH: %s, %s; Child SA %s/%s, virtual address %v", c.name, peer, up.Suite, up.Child.InSPI, up.Child.OutSPI, p.vips[i])
	return nil
}

// pass pings through each tunnel.
func (p *play) pass(ctx context.Context) error {
	for i, c := range p.clients {
		n, err := p.pings(ctx, i)
		if err != nil {
			return err
		}
		p.say("%-8s ping %v through the tunnel: %d answered", c.name, inner, n)
	}
	return nil
}

// pings sends some through a client's tunnel, which must all be answered.
func (p *play) pings(ctx context.Context, i int) (int, error) {
	sent, received, err := p.ping(ctx, p.clients[i], p.vips[i], 3, 100*time.Millisecond)
	if err != nil || received < sent {
		return received, fmt.Errorf("%s: %d of %d pings answered (%v)", names[i], received, sent, err)
	}
	return received, nil
}

// keepalives waits until each client's socket has had answers that the
// gateway's program counts as sent, while the gateway's own sockets had no
// keepalive at all.
func (p *play) keepalives(ctx context.Context) error {
	for i, c := range p.clients {
		for {
			got, err := c.keepalives(ctx)
			if err != nil {
				return err
			}
			peer, ok, err := p.maps.Peers.Get(p.tuples[i])
			if err != nil {
				return err
			}
			if ok && got >= 2 && peer.Answers >= got {
				p.say("%-8s %d NAT keepalives came from %v, XDP answered %d, %d came back through the NAT",
					c.name, peer.Keepalives, p.tuples[i].Peer, peer.Answers, got)
				break
			}
			if sleep(ctx, 100*time.Millisecond); ctx.Err() != nil {
				return fmt.Errorf("%s has received %d answers", c.name, got)
			}
		}
	}
	n, err := p.gateway.keepalives(ctx)
	if err != nil || n > 0 {
		return fmt.Errorf("%d keepalives came to the gateway's sockets: %v", n, err)
	}
	counters, err := p.maps.Stats.Read()
	if err != nil {
		return err
	}
	p.say("gateway  answered in XDP: %d; keepalives that came to its sockets: %d", counters.KeepaliveAnswered, n)
	return nil
}

// busy keeps all clients sending for three delays and more, in which nobody is
// probed. The window begins with the traffic: a probe before it is no matter.
func (p *play) busy(ctx context.Context) error {
	for i := range p.clients {
		if _, err := p.pings(ctx, i); err != nil {
			return err
		}
	}
	mark, window := p.diary.mark(), 3*delay+time.Second
	const every = 500 * time.Millisecond
	type result struct {
		sent, received int
		err            error
	}
	results := make(chan result)
	for i, c := range p.clients {
		go func() { // ends with its series
			var r result
			r.sent, r.received, r.err = p.ping(ctx, c, p.vips[i], int(window/every), every)
			results <- r
		}()
	}
	var sum result
	for range p.clients {
		r := <-results
		sum.sent += r.sent
		sum.received += r.received
		if sum.err == nil {
			sum.err = r.err
		}
	}
	if sum.err != nil || sum.received == 0 {
		return fmt.Errorf("%d of %d pings answered: %v", sum.received, sum.sent, sum.err)
	}
	if probes := p.diary.since(mark, told("gateway", "probe_sent", "")); len(probes) > 0 {
		return fmt.Errorf("%s was probed", probes[0].Peer)
	}
	p.say("gateway  traffic for %v, three DPD delays and more (%d of %d pings answered): 0 probes sent", window, sum.received, sum.sent)
	return nil
}

// idle waits for the probe of a client that has nothing to say, and kills
// another meanwhile.
func (p *play) idle(ctx context.Context) error {
	mark := p.diary.mark()
	if err := p.kill(); err != nil {
		return err
	}
	peer := names[0] + "@example.org"
	sent, err := p.diary.await(ctx, mark, told("gateway", "probe_sent", peer))
	if err != nil {
		return err
	}
	p.say("gateway  %s is silent: DPD probe sent", peer)
	answered, err := p.diary.await(ctx, mark, told("gateway", "probe_answered", peer))
	if err != nil {
		return err
	}
	p.say("gateway  %s answered after %v", peer, answered.Time.Sub(sent.Time).Round(10*time.Microsecond))
	return nil
}

// kill ends the last client without a word.
func (p *play) kill() error {
	last := p.clients[len(p.clients)-1]
	if p.sabotage == "kill" {
		return nil
	}
	if err := last.process.Signal(unix.SIGKILL); err != nil {
		return err
	}
	<-last.process.Done()
	p.say("%-8s killed (process %d)", last.name, last.process.PID())
	return nil
}

// death waits for the verdict over the last client, and looks for what is left
// of it: in the daemon, in the data plane, in the maps.
func (p *play) death(ctx context.Context) error {
	last := len(names) - 1
	peer := names[last] + "@example.org"
	dead, err := p.diary.await(ctx, 0, func(e entry) bool { return told("gateway", "closed", peer)(e) && e.Reason == "dead" })
	if err != nil {
		return err
	}
	tries := p.diary.since(0, told("gateway", "retransmit", peer))
	if len(tries) == 0 {
		return fmt.Errorf("its probe was not sent again")
	}
	p.say("gateway  %s: the probe went out %d more times, no answer: declared dead after %.1fs of silence",
		peer, len(tries), float64(dead.SilentMS)/1000)
	return p.cleared(ctx, last)
}

func (p *play) cleared(ctx context.Context, i int) error {
	sas, err := p.gateway.sas(ctx)
	if err != nil {
		return err
	}
	if len(sas) != len(names)-1 {
		return fmt.Errorf("the daemon has %d Child SAs", len(sas))
	}
	if err := p.unreachable(ctx, p.vips[i]); err != nil {
		return err
	}
	_, _, hot := p.maps.Hot.Read(p.inSPIs[i])
	_, peer, err := p.maps.Peers.Get(p.tuples[i])
	if err != nil || hot || peer {
		return fmt.Errorf("left in the maps: SPI %v, tuple %v (%v)", hot, peer, err)
	}
	p.say("gateway  gone: its SA from the daemon, the tunnel to %v from the data plane, SPI %08x and %v from the maps",
		p.vips[i], p.inSPIs[i], p.tuples[i].Peer)
	return nil
}

// unreachable shows that the data plane has no tunnel for an address: it
// counts the packets for it as having none.
func (p *play) unreachable(ctx context.Context, to netip.Addr) error {
	before, err := p.gateway.noTunnel(ctx)
	if err != nil {
		return err
	}
	const pings = 3
	_, received, err := p.gateway.ns.Ping(ctx, lab.Ping{Src: inner, Dst: to, Count: pings, Interval: 20 * time.Millisecond, Timeout: 200 * time.Millisecond})
	if err != nil || received > 0 {
		return fmt.Errorf("%v answered %d pings (%v)", to, received, err)
	}
	after, err := p.gateway.noTunnel(ctx)
	if err != nil || after < before+pings {
		return fmt.Errorf("the data plane still has a tunnel for %v: %d packets had none (%v)", to, after-before, err)
	}
	return nil
}

// others shows that the clients beside the dead one are as they were.
func (p *play) others(ctx context.Context) error {
	sas, err := p.gateway.sas(ctx)
	if err != nil {
		return err
	}
	for i, c := range p.clients[:len(names)-1] {
		if _, _, ok := p.maps.Hot.Read(p.inSPIs[i]); !ok {
			return fmt.Errorf("%s has left the maps", c.name)
		}
		if _, err := p.pings(ctx, i); err != nil {
			return err
		}
	}
	p.say("gateway  %d tunnels stay, in the daemon and in the maps, and carry pings", len(sas))
	return nil
}
