package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
)

func attachCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "attach", Category: "XDP", Usage: "put XDP on interfaces, without the daemon",
		UsageText: "[IFACE...] [--config FILE]",
		Description: `With --config, or without an interface, the configuration says which addresses are
ours, where they are, and the settings; else they are the interface's own. It is
pinned, and stays until "ikepulse detach". Another's XDP program is never replaced.

Example: ikepulse attach eth0 --keepalive absorb`,
		Flags: []cli.Flag{
			configFlag,
			&cli.StringFlag{Name: "keepalive", Usage: "`MODE` for peers' keepalives: answer, absorb or pass"},
			&cli.DurationFlag{Name: "answer-interval", Usage: "answer a peer once in `TIME` at most"},
			&cli.IntFlag{Name: "capacity", Usage: "room for `N` tunnels"},
			&cli.IntFlag{Name: "pass-every", Usage: "let each peer's every `N`th keepalive through, for this host's conntrack"},
			&cli.StringFlag{Name: "vlan-offload", Usage: "where the NIC takes VLAN tags off and answers would go out without: keep, or `off` until detach"},
			&cli.BoolFlag{Name: "account", Usage: "count each SPI's packets, for debugging: every packet costs more"},
		},
		Action: func(c *cli.Context) error {
			p, err := planOf(c)
			if err != nil {
				return err
			}
			return p.carryOut(e)
		},
	}
}

// plan is what attach is about to do.
type plan struct {
	options    loader.Options
	interfaces []string
	byHand     []string // those of them that a person has named
	addresses  []netip.Addr
	from       string // what says which addresses are ours
	only       bool   // and that there are no others
	running    bool   // a daemon says so, and is not to be contradicted
}

func planOf(c *cli.Context) (*plan, error) {
	var p *plan
	var err error
	if c.IsSet("config") || c.NArg() == 0 {
		p, err = planOfConfig(c)
	} else {
		p, err = planOfInterfaces(c)
	}
	if err != nil {
		return nil, err
	}
	p.byHand = gateway.RealNames(c.Args().Slice())
	i := instanceOf(c)
	err = i.unseen
	if p.running = i.running; p.running {
		p.from = "as the running daemon has them"
		err = i.hasXDP(c.Context)
	}
	if err != nil {
		return nil, err
	}
	if c.IsSet("keepalive") {
		p.options.Keepalive = c.String("keepalive")
	}
	if c.IsSet("answer-interval") {
		p.options.AnswerInterval = c.Duration("answer-interval")
	}
	if c.IsSet("capacity") {
		p.options.Capacity = c.Int("capacity")
	}
	if c.IsSet("pass-every") {
		p.options.PassEvery = c.Int("pass-every")
	}
	if c.IsSet("vlan-offload") {
		switch word := c.String("vlan-offload"); word {
		case "keep", "off":
			p.options.KeepTags = word == "off"
		default:
			return nil, usage("--vlan-offload %s: want keep or off", word)
		}
	}
	if c.IsSet("account") {
		p.options.Account = c.Bool("account")
	}
	if p.running {
		err = i.pins(p.keepsMaps)
	}
	if errors.Is(err, loader.ErrNotLoaded) {
		err = errors.New("the running daemon's pins are gone, and it would know nothing of others: restart it, and it attaches by itself")
	}
	return p, err
}

// keepsMaps is an error if the plan would make other maps: a running daemon
// would go on with its own, and know nothing of what XDP sees.
func (p *plan) keepsMaps(loaded *loader.Instance) error {
	if loaded.Maps().Meta.Follow && !p.options.Follow {
		return errors.New("what runs here follows another daemon, of which the configuration says nothing: ikepulse attach IFACE")
	}
	has := loaded.Maps().Meta.Capacity
	if p.options.Capacity == 0 || maps.Entries(p.options.Capacity) == maps.Entries(has) {
		return nil
	}
	return fmt.Errorf("the running daemon's maps have room for %d tunnels, not %d: change xdp.capacity and restart it", has, p.options.Capacity)
}

func planOfConfig(c *cli.Context) (*plan, error) {
	file := c.String("config")
	cfg, problems := config.Check(file, gateway.Checks)
	if problems != nil {
		hint := ""
		if !c.IsSet("config") {
			hint = "\nattach takes the names of interfaces, or a --config"
		}
		return nil, errors.New(problems.Error() + hint)
	}
	p := &plan{options: gateway.LoaderOptions(c.String("instance"), cfg), interfaces: gateway.RealNames(c.Args().Slice()),
		addresses: cfg.Listen.Addresses, from: "listen.addresses of " + file, only: true}
	var err error
	if len(p.interfaces) == 0 {
		p.interfaces, err = gateway.Interfaces(cfg)
	}
	return p, err
}

func planOfInterfaces(c *cli.Context) (*plan, error) {
	names := gateway.RealNames(c.Args().Slice())
	p := &plan{options: loader.Options{Instance: c.String("instance")}, interfaces: names,
		from: "those of " + strings.Join(names, " and ")}
	for _, name := range p.interfaces {
		addresses, err := gateway.AddressesOf(name)
		if err != nil {
			return nil, err
		}
		p.addresses = append(p.addresses, addresses...)
	}
	if len(p.addresses) == 0 && !instanceOf(c).running {
		return nil, fmt.Errorf("no address is on %s: give it one, or name ours in a --config", strings.Join(p.interfaces, " or "))
	}
	// What no flag stands for stays as it is.
	if loaded, err := loader.Open(p.options.Instance); err == nil {
		meta := loaded.Maps().Meta
		p.options.StrangerPass, p.options.Account, p.options.Follow = meta.StrangerPass, meta.Account, meta.Follow
		p.options.PassEvery = int(meta.PassEvery)
		return p, loaded.Close()
	}
	return p, nil // nothing is loaded, or Load says what is wrong with it
}

// carryOut loads and attaches, or leaves everything as it was.
func (p *plan) carryOut(e env) (err error) {
	i, fresh, err := gateway.Load(p.options)
	if errors.Is(err, loader.ErrNoBPFFS) {
		return fmt.Errorf("%w\n(that is for \"run\": without the daemon nothing would hold what is attached)", err)
	}
	if err != nil {
		return err
	}
	undo := func() error { return nil }
	defer func() {
		if err != nil && fresh {
			undo = i.Remove
		}
		if err != nil {
			err = errors.Join(err, undo())
		}
		err = errors.Join(err, i.Close())
	}()
	before, err := i.Attachments()
	if err != nil {
		return err
	}
	ours, err := i.Maps().Locals.List()
	if err != nil {
		return err
	}
	undo = func() error { return i.Maps().Locals.Set(ours) }
	if err := p.setLocals(i); err != nil {
		return err
	}
	done, err := gateway.AttachAll(i, p.interfaces)
	if err != nil {
		return err
	}
	for _, name := range p.byHand {
		if err := i.ByHand(name); err != nil {
			return err
		}
	}
	x, err := gateway.DescribeXDP(i)
	if err != nil {
		return err
	}
	return renderAttached(e.stdout, attached{XDP: x, done: done, before: before, from: p.from, noTables: i.Tables()})
}

func (p *plan) setLocals(i *loader.Instance) error {
	if p.running {
		return nil
	}
	if p.only {
		return i.Maps().Locals.Set(p.addresses)
	}
	for _, a := range p.addresses {
		if err := i.Maps().Locals.Add(a); err != nil {
			return err
		}
	}
	return nil
}
