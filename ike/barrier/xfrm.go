package barrier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// xfrm is policies of the kernel's IPsec about what comes in and what is
// forwarded: to block a covered source, and to allow what stays outside, longest
// prefix first. Of what leaves they block only what is for a pushed next hop, to
// which the routes lead; those of IPv6 are link-local.
//
// What came by the TUN is exempt (disable_policy, set here), and so is what
// arrives at a socket with a policy of its own, as those of ike/udp are. For IPv6
// the kernel exempts by the interface that has the destination, not by the one
// that the packet came by (tried on 6.18): what comes in for this host itself is
// left to nftables there, and only what is forwarded is blocked. A selector sees
// less than a rule of nftables does: ICMP errors about inner
// packets pass as well as those about the outer ones.
type xfrm struct {
	Options
	socket *nl.SocketHandle
	wanted map[policy]sentence
}

// policy is what the kernel knows one by.
type policy struct {
	dir netlink.Dir
	sel nl.XfrmSelector
}

// sentence is what becomes of the packets of a policy.
type sentence struct {
	action   netlink.PolicyAction
	priority uint32 // the lowest wins
}

// standing is a policy's sentence as the kernel has it, which numbers them.
type standing struct {
	sentence
	index uint32
}

const (
	// firstPriority is behind the policies of everybody else.
	firstPriority = 0xf0000000
)

// XFRM is a filter of policies. An error says that the kernel has none, or that
// the TUN, which must exist, cannot be exempted from them.
func XFRM(o Options) (Filter, error) {
	f, err := openXFRM(o)
	if err != nil {
		return nil, err
	}
	if err := f.exemptTUN(); err != nil {
		f.socket.Close()
		return nil, fmt.Errorf("XFRM policies: %w", err)
	}
	return f, nil
}

func openXFRM(o Options) (*xfrm, error) {
	s, err := nl.Subscribe(unix.NETLINK_XFRM)
	if err != nil {
		return nil, fmt.Errorf("XFRM policies: %w", err)
	}
	return &xfrm{Options: o, socket: &nl.SocketHandle{Socket: s}}, nil
}

// RemoveXFRM takes away what a killed process has left.
func RemoveXFRM(o Options) error {
	f, err := openXFRM(o)
	if err != nil {
		return nil // the kernel has none
	}
	return f.Remove()
}

func (*xfrm) Kind() string { return "XFRM policies" }

func (*xfrm) Hears() bool { return true } // such sockets have policies of their own

func (f *xfrm) Concerns(e Event) bool {
	return e.What == PolicyChanged && (e.Owner == f.Mark || e.Owner == 0) || e.What == LinkChanged && e.Link == f.TUN
}

// exemptions are the settings by which the kernel asks no policy.
func (f *xfrm) exemptions() []string {
	all := []string{"/proc/sys/net/ipv4/conf/" + f.TUN + "/disable_policy"}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		all = append(all, "/proc/sys/net/ipv6/conf/"+f.TUN+"/disable_policy")
	}
	return all
}

func (f *xfrm) exemptTUN() error {
	for _, path := range f.exemptions() {
		if set, _ := isOne(path); set {
			continue
		}
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			return err
		}
	}
	return nil
}

// Silent: the kernel tells nobody of the settings.
func (f *xfrm) Silent() bool {
	return slices.ContainsFunc(f.exemptions(), func(path string) bool {
		set, err := isOne(path)
		return err == nil && !set
	})
}

func isOne(path string) (bool, error) {
	b, err := os.ReadFile(path)
	return len(b) > 0 && b[0] == '1', err
}

// Set goes from the policies that are there to those of p so that at no moment an
// address passes that both cover.
func (f *xfrm) Set(p *Plan) error {
	f.wanted = f.policies(p)
	present, err := f.present()
	if err != nil {
		return err
	}
	// A TUN that is gone just now, or no descriptor for its settings, is no reason
	// to let others' packets pass.
	if err = f.exemptTUN(); err != nil {
		err = fmt.Errorf("XFRM policies: %w", err)
	}
	return errors.Join(err, f.carryOut(changes(present, f.wanted)))
}

// change makes or alters a policy, or removes it.
type change struct {
	policy
	standing // with an index, if it is to be removed
	remove   bool
}

// changes are in an order in which nothing passes that passes neither before nor
// after: what blocks comes first, and goes last.
func changes(present map[policy]standing, wanted map[policy]sentence) []change {
	var block, allow, disallow, unblock []change
	for p, s := range wanted {
		if have, ok := present[p]; ok && have.sentence == s {
			continue
		}
		if s.action == netlink.XFRM_POLICY_BLOCK {
			block = append(block, change{p, standing{sentence: s}, false})
		} else {
			allow = append(allow, change{p, standing{sentence: s}, false})
		}
	}
	for p, s := range present {
		if _, ok := wanted[p]; ok {
			continue
		}
		if s.action == netlink.XFRM_POLICY_BLOCK {
			unblock = append(unblock, change{p, s, true})
		} else {
			disallow = append(disallow, change{p, s, true})
		}
	}
	return slices.Concat(block, allow, disallow, unblock)
}

// policies are those that ought to be there.
func (f *xfrm) policies(p *Plan) map[policy]sentence {
	all := map[policy]sentence{}
	covers4 := false
	for x, v := range p.Verdicts() {
		s := sentence{netlink.XFRM_POLICY_BLOCK, firstPriority + 1 + uint32(128-x.Bits())}
		if v == Spared {
			s.action = netlink.XFRM_POLICY_ALLOW
		}
		all[policy{netlink.XFRM_DIR_FWD, f.from(x)}] = s
		if x.Addr().Is4() {
			all[policy{netlink.XFRM_DIR_IN, f.from(x)}] = s
			covers4 = true
		}
		if v == Next && x.Addr().Is4() {
			all[policy{netlink.XFRM_DIR_OUT, f.to(x)}] = s
			for _, sel := range f.dhcp() { // which may be the server, too
				all[policy{netlink.XFRM_DIR_OUT, sel}] = sentence{netlink.XFRM_POLICY_ALLOW, firstPriority}
			}
		}
	}
	if !covers4 {
		return all
	}
	for _, sel := range append(f.outside(), f.replies(p)...) {
		all[policy{netlink.XFRM_DIR_IN, sel}] = sentence{netlink.XFRM_POLICY_ALLOW, firstPriority}
	}
	return all
}

func (f *xfrm) replies(p *Plan) (all []nl.XfrmSelector) {
	for _, r := range p.Replies {
		if r.From.Is4() {
			sel := f.from(r.To)
			sel.Daddr, sel.PrefixlenD = addressOf(r.From), uint8(r.From.BitLen())
			all = append(all, sel)
		}
	}
	return all
}

// outside selects what is not the tunnel's, though it has a covered address of
// IPv4.
func (f *xfrm) outside() (all []nl.XfrmSelector) {
	for _, kind := range pathErrors[true] { // which stands in the place of the source port
		sel := f.every(unix.AF_INET, unix.IPPROTO_ICMP)
		sel.Sport, sel.SportMask = bigEndian(uint16(kind)), 0xffff
		all = append(all, sel)
	}
	return append(all, f.dhcp()...)
}

func (f *xfrm) dhcp() (all []nl.XfrmSelector) {
	for _, from := range [][2]uint16{{dhcpClient, dhcpServer}, {dhcpServer, dhcpClient}} {
		sel := f.every(unix.AF_INET, unix.IPPROTO_UDP)
		sel.Sport, sel.SportMask = bigEndian(from[0]), 0xffff
		sel.Dport, sel.DportMask = bigEndian(from[1]), 0xffff
		all = append(all, sel)
	}
	return all
}

// every selects all packets of a protocol. The field of the user takes no part
// in the kernel's choice, but two selectors that differ in it are not the same:
// it says whose the policy is.
func (f *xfrm) every(family uint16, protocol uint8) nl.XfrmSelector {
	return nl.XfrmSelector{Family: family, Proto: protocol, User: f.Mark}
}

func (f *xfrm) from(x netip.Prefix) nl.XfrmSelector {
	family := uint16(unix.AF_INET6)
	if x.Addr().Is4() {
		family = unix.AF_INET
	}
	sel := f.every(family, 0)
	sel.Saddr, sel.PrefixlenS = addressOf(x.Addr()), uint8(x.Bits())
	return sel
}

// to selects what goes to a network of IPv4.
func (f *xfrm) to(x netip.Prefix) nl.XfrmSelector {
	sel := f.every(unix.AF_INET, 0)
	sel.Daddr, sel.PrefixlenD = addressOf(x.Addr()), uint8(x.Bits())
	return sel
}

func addressOf(a netip.Addr) (out nl.XfrmAddress) {
	copy(out[:], a.AsSlice())
	return out
}

// bigEndian is a number as a field in network byte order holds it.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (f *xfrm) request(kind nl.XfrmMsgType, flags int, body nl.NetlinkRequestData) ([][]byte, error) {
	r := nl.NewNetlinkRequest(int(kind), flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_XFRM: f.socket}
	r.AddData(body)
	answer, err := r.Execute(unix.NETLINK_XFRM, 0)
	if err != nil {
		return nil, fmt.Errorf("XFRM policies: %w", err)
	}
	return answer, nil
}

// present are the policies of ours that are there.
func (f *xfrm) present() (map[policy]standing, error) {
	messages, err := f.request(nl.XFRM_MSG_GETPOLICY, unix.NLM_F_DUMP, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, err
	}
	all := map[policy]standing{}
	for _, m := range messages {
		if len(m) < nl.SizeofXfrmUserpolicyInfo {
			continue
		}
		info := nl.DeserializeXfrmUserpolicyInfo(m)
		if info.Sel.User == f.Mark {
			all[policy{netlink.Dir(info.Dir), info.Sel}] = standing{sentence{netlink.PolicyAction(info.Action), info.Priority}, info.Index}
		}
	}
	return all, nil
}

func (f *xfrm) Missing() (string, error) {
	present, err := f.present()
	if err != nil {
		return "", err
	}
	n := 0
	for p, s := range f.wanted {
		if have, ok := present[p]; !ok || have.sentence != s {
			n++
		}
	}
	if n > 0 {
		return fmt.Sprintf("%d of the XFRM policies", n), nil
	}
	for _, path := range f.exemptions() {
		set, err := isOne(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if !set {
			return path + ", without which XFRM policies drop what the tunnels bring", nil
		}
	}
	return "", nil
}

func (f *xfrm) Remove() error {
	defer f.socket.Close()
	present, err := f.present()
	return errors.Join(err, f.carryOut(changes(present, nil)))
}

func (f *xfrm) Close() error {
	f.socket.Close()
	return nil
}
