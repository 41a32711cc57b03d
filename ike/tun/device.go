package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
)

// Config is what a Device is to be.
type Config struct {
	Name string // of the interface; "%d" in it becomes a number. Default: ikepulse%d
	// MTU is the largest of any tunnel's. Default: DefaultMTU
	MTU   int
	Table int // the routing table of our own, which nobody else may use
	// Mark is on everything that the gateway itself sends (SO_MARK): the rule
	// leaves it out, or ESP would go into the tunnel that it carries.
	Mark uint32
	// Routes lead into the device for as long as it exists: the pools of
	// virtual addresses. A tunnel to one of those needs no route then.
	Routes []Route
	// Plan says what may leave and enter only by tunnels; nil: nothing.
	Plan *barrier.Plan
}

// DefaultMTU leaves room for ESP and UDP on a path of 1500 bytes.
const DefaultMTU = 1400

// Route leads to tunnels. MTU is the smallest of those; 0: the Device's.
type Route struct {
	To  netip.Prefix
	MTU int
}

// Device is a TUN interface with the routes that lead to it. It belongs to the
// network namespace of the thread that opened it, and so does all that it adds
// there later.
type Device struct {
	net  *network
	file atomic.Pointer[os.File]
	anew chan struct{} // has one when file was opened anew; for Plane.Serve
}

var errNoTable = errors.New("tun: a table of our own and a mark are needed")

// Open makes the interface and brings it up. It needs CAP_NET_ADMIN.
func Open(c Config) (*Device, error) {
	if c.Table <= unix.RT_TABLE_LOCAL || c.Mark == 0 {
		return nil, errNoTable
	}
	file, name, err := openTUN(orDefault(c.Name, "ikepulse%d"))
	if err != nil {
		return nil, err
	}
	d := &Device{anew: make(chan struct{}, 1)}
	d.file.Store(file)
	if d.net, err = newNetwork(name, c); err != nil {
		return nil, errors.Join(fmt.Errorf("interface %s: %w", name, err), file.Close())
	}
	left, err := d.net.presentRules()
	if err == nil {
		err = d.net.setUp()
	}
	if err != nil {
		// What a killed process has left goes on to block, or is gone as it was.
		closed := d.Leave
		if len(left) == 0 {
			closed = d.Close
		}
		return nil, errors.Join(fmt.Errorf("interface %s: %w", name, err), closed())
	}
	return d, nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// openTUN makes a TUN interface for bare IP packets. The file can be waited
// for, so a read ends with a deadline or Close.
func openTUN(name string) (*os.File, string, error) {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		// Exclusively: a persistent interface of this name is somebody else's.
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, "", fmt.Errorf("make the interface %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), path), ifr.Name(), nil
}

// Name is the interface's name.
func (d *Device) Name() string { return d.net.name }

// Close takes away the interface and everything that led to it.
func (d *Device) Close() error {
	// The interface's own addresses and routes go with the file.
	return errors.Join(d.net.takeDown(), d.file.Load().Close())
}

// Leave takes away the interface, and leaves what keeps packets from going by
// another: the next Open takes that over.
func (d *Device) Leave() error {
	d.net.handle.Close()
	return d.file.Load().Close()
}

// write hands one packet to this host's network stack.
func (d *Device) write(packet []byte) error {
	_, err := d.file.Load().Write(packet)
	return err
}

// reopen makes the interface anew if somebody has deleted it.
func (d *Device) reopen() error {
	n := d.net
	n.mu.Lock()
	defer n.mu.Unlock()
	link, err := n.handle.LinkByName(n.name)
	if err == nil && link.Attrs().Index == n.link.Attrs().Index {
		return nil
	}
	file, _, err := openTUN(n.name)
	if err != nil {
		return err
	}
	if link, err = n.handle.LinkByName(n.name); err != nil {
		return errors.Join(err, file.Close())
	}
	n.link = link
	old := d.file.Swap(file)
	select {
	case d.anew <- struct{}{}:
	default:
	}
	return old.Close()
}

// newNetwork is the routing around the interface of that name.
func newNetwork(name string, c Config) (*network, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	link, err := h.LinkByName(name)
	if err != nil {
		h.Close()
		return nil, err
	}
	n := &network{handle: h, name: name, link: link, table: c.Table, mark: c.Mark, mtu: orDefault(c.MTU, DefaultMTU),
		standing: map[netip.Prefix]*lead{}, routes: map[netip.Prefix]*lead{}, addresses: map[netip.Addr]int{}}
	n.plan.Store(orDefault(c.Plan, new(barrier.Plan)))
	for _, r := range c.Routes {
		to := r.To.Masked()
		n.standing[to] = &lead{with: with{mtu: metric(to, r.MTU, n.mtu)}}
	}
	return n, nil
}

// Forget removes the rules and routes that a killed process has left to a
// table. The interface went with the process.
func Forget(table int) error {
	n, err := ofTable(table)
	if err != nil {
		return err
	}
	return n.takeDown()
}

// Left reports whether there are such rules: then what the process covered is
// still blocked.
func Left(table int) (bool, error) {
	n, err := ofTable(table)
	if err != nil {
		return false, err
	}
	defer n.handle.Close()
	rules, err := n.presentRules()
	return len(rules) > 0, err
}

func ofTable(table int) (*network, error) {
	if table <= unix.RT_TABLE_LOCAL {
		return nil, errNoTable
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	n := &network{handle: h, table: table}
	n.plan.Store(new(barrier.Plan))
	return n, nil
}
