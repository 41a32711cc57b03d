package shard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/pool"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// Pool is a range of virtual addresses.
type Pool struct {
	Name     string
	Prefixes []netip.Prefix
	DNS      []netip.Addr
	Domains  []string // that the DNS servers are asked for
}

// rememberLeases is how many former holders a pool keeps an address for.
const rememberLeases = 1 << 16

var errNoAddress = errors.New("no pool has an address left")

// directory knows which identity has which SAs, in whichever shard, and what
// addresses they have leased. It is one goroutine, and is asked by message.
type directory struct {
	mail mailbox
	wake chan struct{}

	pools      map[string]*addresses
	claims     map[uint64]*claim // by the SA's SPI
	identities map[string]*holder
	panics     uint64
}

// holder is an identity that has SAs.
type holder struct {
	claims  []*claim
	next    int      // the lowest ordinal that was never used
	free    []int    // those below that are free again
	leaving int      // SAs that were replaced and are not gone yet
	waiting []func() // admissions that wait for those
}

// addresses are one pool's.
type addresses struct {
	conf Pool
	pool *pool.Pool
}

// claim is one SA of an identity.
type claim struct {
	shard    *Shard
	spi      uint64
	identity string
	ordinal  int // which of the identity's SAs at the same time, from 0
	replaced bool
	leases   []lease
}

type lease struct {
	from *addresses
	pool.Lease
}

func newDirectory(pools []Pool) (*directory, error) {
	d := &directory{wake: make(chan struct{}, 1), pools: map[string]*addresses{}, claims: map[uint64]*claim{},
		identities: map[string]*holder{}}
	for _, p := range pools {
		made, err := pool.New(p.Prefixes, rememberLeases)
		if err != nil {
			return nil, fmt.Errorf("pool %s: %w", p.Name, err)
		}
		d.pools[p.Name] = &addresses{p, made}
	}
	return d, nil
}

// directoryShare is how many questions are answered before others may use the
// processor.
const directoryShare = 16

// run works until ctx ends.
func (d *directory) run(ctx context.Context) {
	for {
		for d.mail.waiting() {
			d.mail.some(directoryShare, d.do)
			runtime.Gosched()
		}
		select {
		case <-d.wake:
		case <-ctx.Done():
			return
		}
	}
}

// do runs one message; a panic costs that message.
func (d *directory) do(m message) {
	defer func() {
		if recover() != nil {
			d.panics++
		}
	}()
	m(0)
}

// post has the directory run a message that must not be lost: there are no more
// of them than SAs.
func (d *directory) post(m message) {
	d.mail.post(m)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// errNoPlace refuses a peer who has proved who he is.
var errNoPlace = errors.New("the gateway has as many tunnels as it can hold")

// admit asks for an SA's admission, which is answered by a command. A tunnel's
// place is taken here and not before: whoever has not proved who he is takes
// none from those who will.
func (s *Shard) admit(e *entry, st sa.Admit) error {
	if !e.placed && !s.group.reserve() {
		s.count[cTableFull]++
		return errNoPlace
	}
	e.placed = true
	e.held.admitted = true
	d, spi := s.group.directory, e.sa.SPI()
	d.post(func(mono.Time) {
		d.admit(s, spi, st, func(a sa.Admitted) { s.post(func(now mono.Time) { s.tell(now, spi, a) }) })
	})
	return nil
}

// leave ends an SA's admission.
func (d *directory) leave(spi uint64) { d.post(func(mono.Time) { d.remove(spi) }) }

// admit enters an SA. With INITIAL_CONTACT the identity's other SAs go, wherever
// they are; RFC 7296 §2.4 lets only the same authenticated identity say so. The
// new one takes over their addresses, and is answered when they are gone: so no
// data plane meets two SAs for the same traffic.
func (d *directory) admit(s *Shard, spi uint64, st sa.Admit, answer func(sa.Admitted)) {
	h := d.identities[st.Identity]
	if h == nil {
		h = &holder{}
		d.identities[st.Identity] = h
	}
	if st.InitialContact {
		h.replaceAll()
	}
	c := &claim{shard: s, spi: spi, identity: st.Identity, ordinal: h.ordinal()}
	h.claims = append(h.claims, c)
	d.claims[spi] = c
	admitted := d.lease(c, st)
	if h.leaving > 0 {
		h.waiting = append(h.waiting, func() { answer(admitted) })
		return
	}
	answer(admitted)
}

// replaceAll ends the SAs of an identity. Each will leave, as every SA does.
func (h *holder) replaceAll() {
	for _, old := range h.claims {
		old.replaced = true
		h.leaving++
		shard, spi := old.shard, old.spi
		shard.post(func(now mono.Time) { shard.tell(now, spi, sa.Replace{}) })
	}
	h.claims, h.next, h.free = nil, 0, nil
}

// ordinal is one that no claim has.
func (h *holder) ordinal() int {
	if n := len(h.free); n > 0 {
		last := h.free[n-1]
		h.free = h.free[:n-1]
		return last
	}
	h.next++
	return h.next - 1
}

// lease gives the addresses that are wanted, each from the first pool that has
// one. A holder is an identity and the ordinal of its SA: so a peer that comes
// again has its address again, and two devices with one identity do not share.
func (d *directory) lease(c *claim, st sa.Admit) (a sa.Admitted) {
	holder := c.identity
	if c.ordinal > 0 {
		holder += "\x00" + strconv.Itoa(c.ordinal) // no identity has a NUL
	}
	for _, want := range st.Want {
		for _, name := range st.Pools {
			from := d.pools[name]
			if l, ok := from.pool.Lease(holder, want); ok {
				c.leases = append(c.leases, lease{from, l})
				a.Addrs = append(a.Addrs, l.Addr)
				a.DNS = append(a.DNS, from.dnsFor(l.Addr)...)
				a.Domains = append(a.Domains, from.domainsFor(l.Addr)...)
				break
			}
		}
	}
	if len(st.Want) > 0 && len(a.Addrs) == 0 {
		a.Err = errNoAddress
	}
	return a
}

// dnsFor are the pool's servers of an address's family.
func (p *addresses) dnsFor(a netip.Addr) (out []netip.Addr) {
	for _, s := range p.conf.DNS {
		if s.Is4() == a.Is4() {
			out = append(out, s)
		}
	}
	return out
}

// domainsFor are the pool's domains, for the servers of an address's family.
func (p *addresses) domainsFor(a netip.Addr) (out []sa.Domain) {
	for _, name := range p.conf.Domains {
		out = append(out, sa.Domain{Name: name, IPv6: a.Is6()})
	}
	return out
}

// remove ends a claim, and those of its leases that are not another's by now.
func (d *directory) remove(spi uint64) {
	c := d.claims[spi]
	if c == nil {
		return
	}
	delete(d.claims, spi)
	for _, l := range c.leases {
		l.from.pool.Release(l.Lease)
	}
	h := d.identities[c.identity]
	if c.replaced {
		h.leaving--
	} else {
		h.claims = slices.DeleteFunc(h.claims, func(o *claim) bool { return o == c })
		h.free = append(h.free, c.ordinal)
	}
	if h.leaving == 0 {
		for _, answer := range h.waiting {
			answer()
		}
		h.waiting = nil
	}
	if len(h.claims) == 0 && h.leaving == 0 {
		delete(d.identities, c.identity)
	}
}

// directoryStatus is the directory's part of a Status.
type directoryStatus struct {
	leases map[string]int
	panics uint64
}

func (g *Group) directoryStatus(ctx context.Context) (st directoryStatus, err error) {
	d := g.directory
	reply := make(chan directoryStatus, 1)
	d.post(func(mono.Time) {
		st := directoryStatus{map[string]int{}, d.panics}
		for name, p := range d.pools {
			st.leases[name] = p.pool.Live()
		}
		reply <- st
	})
	select {
	case st = <-reply:
		return st, nil
	case <-ctx.Done():
		return st, ctx.Err()
	case <-g.done:
		return st, ErrStopped
	}
}
