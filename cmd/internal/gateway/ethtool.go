package gateway

import (
	"errors"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ethtool asks what ethtool -k and -l show.
type ethtool struct {
	family *netlink.GenlFamily
}

func newEthtool() (*ethtool, error) {
	family, err := netlink.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
	return &ethtool{family}, err
}

// get returns the attributes of one question about an interface. Every
// question's header is its first attribute.
func (e *ethtool) get(command uint8, ifname string) (map[uint16][]byte, error) {
	r := nl.NewNetlinkRequest(int(e.family.ID), 0)
	r.AddData(&nl.Genlmsg{Command: command, Version: unix.ETHTOOL_GENL_VERSION})
	header := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_HEADER|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_NAME, nl.ZeroTerminated(ifname))
	r.AddData(header)
	answers, err := r.Execute(unix.NETLINK_GENERIC, 0)
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

// features returns the offloads that are on, by the kernel's names.
func (e *ethtool) features(ifname string) (map[string]bool, error) {
	all, err := e.get(unix.ETHTOOL_MSG_FEATURES_GET, ifname)
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

// queues returns how many receive queues there are; 0 if the driver does not
// tell.
func (e *ethtool) queues(ifname string) int {
	all, err := e.get(unix.ETHTOOL_MSG_CHANNELS_GET, ifname)
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

// driverOf names an interface's driver, "" if it does not tell.
func driverOf(ifname string) string {
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
