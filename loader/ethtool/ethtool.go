// Package ethtool asks and sets what ethtool -k, -l and -i show, by the
// kernel's own interface.
package ethtool

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Offloads that take a VLAN tag off a frame that comes, by the kernel's names.
const (
	StripsTags        = "rx-vlan-hw-parse"      // 802.1Q's
	StripsServiceTags = "rx-vlan-stag-hw-parse" // 802.1ad's
)

// LRO is the offload that merges frames that come.
const LRO = "rx-lro"

// Conn asks in the network namespace of the calling thread.
type Conn struct {
	family uint16
}

// Open finds the kernel's interface.
func Open() (*Conn, error) {
	family, err := netlink.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
	if err != nil {
		return nil, fmt.Errorf("this kernel has no %s netlink: %w", unix.ETHTOOL_GENL_NAME, err)
	}
	return &Conn{family.ID}, nil
}

// request is about one interface. Every request's header is its first
// attribute.
func (c *Conn) request(command uint8, ifname string, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(int(c.family), flags)
	r.AddData(&nl.Genlmsg{Command: command, Version: unix.ETHTOOL_GENL_VERSION})
	header := nested(unix.ETHTOOL_A_FEATURES_HEADER)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_NAME, nl.ZeroTerminated(ifname))
	if flags&unix.NLM_F_ACK != 0 {
		header.AddRtAttr(unix.ETHTOOL_A_HEADER_FLAGS, nl.Uint32Attr(unix.ETHTOOL_FLAG_OMIT_REPLY))
	}
	r.AddData(header)
	return r
}

func nested(kind int) *nl.RtAttr { return nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil) }

// get returns the attributes of one answer.
func (c *Conn) get(command uint8, ifname string) (map[uint16][]byte, error) {
	answers, err := c.request(command, ifname, 0).Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 || len(answers[0]) < nl.SizeofGenlmsg {
		return nil, errors.New("ethtool: not one answer")
	}
	return attributes(answers[0][nl.SizeofGenlmsg:])
}

// attributes has the last of each type.
func attributes(b []byte) (map[uint16][]byte, error) {
	list, err := nl.ParseRouteAttr(b)
	out := map[uint16][]byte{}
	for _, a := range list {
		out[a.Attr.Type&nl.NLA_TYPE_MASK] = a.Value
	}
	return out, err
}

// Features returns the offloads that are on, by the kernel's names.
func (c *Conn) Features(ifname string) (map[string]bool, error) {
	all, err := c.get(unix.ETHTOOL_MSG_FEATURES_GET, ifname)
	if err != nil {
		return nil, err
	}
	set, err := attributes(all[unix.ETHTOOL_A_FEATURES_ACTIVE])
	if err != nil {
		return nil, err
	}
	bits, err := nl.ParseRouteAttr(set[unix.ETHTOOL_A_BITSET_BITS])
	on := map[string]bool{}
	for _, bit := range bits {
		of, errBit := attributes(bit.Value)
		if err = errors.Join(err, errBit); err != nil {
			return nil, err
		}
		on[nl.BytesToString(of[unix.ETHTOOL_A_BITSET_BIT_NAME])] = true
	}
	return on, err
}

// Switch turns offloads on or off. A driver may do otherwise without an error.
func (c *Conn) Switch(ifname string, features []string, on bool) error {
	r := c.request(unix.ETHTOOL_MSG_FEATURES_SET, ifname, unix.NLM_F_ACK)
	wanted := nested(unix.ETHTOOL_A_FEATURES_WANTED)
	bits := nested(unix.ETHTOOL_A_BITSET_BITS)
	for _, name := range features {
		bit := nested(unix.ETHTOOL_A_BITSET_BITS_BIT)
		bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(name))
		if on {
			bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_VALUE, nil)
		}
		bits.AddChild(bit)
	}
	wanted.AddChild(bits)
	r.AddData(wanted)
	_, err := r.Execute(unix.NETLINK_GENERIC, 0)
	return err
}

// Queues returns how many receive queues there are; 0 if the driver does not
// tell.
func (c *Conn) Queues(ifname string) int {
	all, err := c.get(unix.ETHTOOL_MSG_CHANNELS_GET, ifname)
	if err != nil {
		return 0
	}
	n := 0
	for _, kind := range []uint16{unix.ETHTOOL_A_CHANNELS_RX_COUNT, unix.ETHTOOL_A_CHANNELS_COMBINED_COUNT} {
		if value := all[kind]; len(value) == 4 {
			n += int(nl.NativeEndian().Uint32(value))
		}
	}
	return n
}

// Driver names an interface's driver, "" if it does not tell.
func Driver(ifname string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, ifname)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}
