package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
	name string
	file *os.File
	net  *network
	mtu  int
}

var errNoTable = errors.New("tun: a table of our own and a mark are needed")

// Open makes the interface and brings it up. It needs CAP_NET_ADMIN.
func Open(c Config) (_ *Device, err error) {
	if c.Table <= unix.RT_TABLE_LOCAL || c.Mark == 0 {
		return nil, errNoTable
	}
	file, name, err := openTUN(orDefault(c.Name, "ikepulse%d"))
	if err != nil {
		return nil, err
	}
	d := &Device{name: name, file: file, mtu: orDefault(c.MTU, DefaultMTU)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("interface %s: %w", name, err), d.Close())
		}
	}()
	if d.net, err = newNetwork(name, c); err != nil {
		return nil, err
	}
	return d, d.net.setUp(d.mtu, c.Routes)
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
func (d *Device) Name() string { return d.name }

// Close takes away the interface and everything that led to it.
func (d *Device) Close() error {
	var err error
	if d.net != nil {
		err = d.net.takeDown()
	}
	// The interface's own addresses and routes go with the file.
	return errors.Join(err, d.file.Close())
}

// write hands one packet to this host's network stack.
func (d *Device) write(packet []byte) error {
	_, err := d.file.Write(packet)
	return err
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
	return &network{handle: h, link: link, table: c.Table, mark: c.Mark,
		routes: map[route]use{}, addresses: map[netip.Addr]int{}}, nil
}

// Forget removes the rules and routes that a killed process has left to a
// table, as Open does before it begins. The interface went with the process.
func Forget(table int) error {
	if table <= unix.RT_TABLE_LOCAL {
		return errNoTable
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	return (&network{handle: h, table: table}).clearTable()
}
