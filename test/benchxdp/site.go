package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// site is the network of a run: the gateway's end of a link, where frames are
// put in as a driver would, and a far end that takes what is sent.
type site struct {
	gateway, far *lab.Namespace
	ifindex      uint32 // of the gateway's end
	softirq      string // the scheduler's account of the thread that is given long softirqs
}

const gatewayLink, farLink = "g0", "p0"

// newSite builds it. Everything goes with the lab.
func newSite(l *lab.Lab, cpu int) (s *site, err error) {
	s = &site{}
	if s.gateway, err = l.Namespace("gateway"); err != nil {
		return nil, err
	}
	if s.far, err = l.Namespace("far"); err != nil {
		return nil, err
	}
	addresses := []netip.Prefix{netip.PrefixFrom(gatewayAddr, 24), netip.PrefixFrom(readerAddr, 24)}
	err = lab.Connect(
		lab.End{Namespace: s.gateway, Name: gatewayLink, MAC: gatewayMAC, Addresses: addresses},
		lab.End{Namespace: s.far, Name: farLink, MAC: peerMAC},
	)
	if err != nil {
		return nil, err
	}
	if s.softirq, err = softirqThread(cpu); err != nil {
		return nil, err
	}
	return s, s.gateway.Do(func() (err error) {
		s.ifindex, err = indexOf(gatewayLink)
		return err
	})
}

func indexOf(name string) (uint32, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return uint32(l.Attrs().Index), nil
}

// sink lets the far end count what arrives, and drop it.
func (r *rig) sink(s *site) error {
	sink, err := r.program(benchProgSink, nil, nil)
	if err != nil {
		return err
	}
	return s.far.Do(func() error {
		index, err := indexOf(farLink)
		if err != nil {
			return err
		}
		attached, err := link.AttachXDP(link.XDPOptions{Program: sink, Interface: int(index), Flags: link.XDPDriverMode})
		if err == nil {
			r.own(attached)
		}
		return err
	})
}

// softirqThread finds ksoftirqd of a CPU.
func softirqThread(cpu int) (schedstat string, err error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("ksoftirqd/%d\n", cpu)
	for _, process := range processes {
		comm, err := os.ReadFile("/proc/" + process.Name() + "/comm")
		if err == nil && string(comm) == name {
			return "/proc/" + process.Name() + "/schedstat", nil
		}
	}
	return "", fmt.Errorf("no thread is called %q", name)
}

// spent is the CPU time of this thread and of the one that may have done softirqs
// for it. The stack runs on this thread, and so does a reader: only the Go
// scheduler's own threads, which wake up for every long call, do not count.
func (s *site) spent() (ns int64, err error) {
	text, err := os.ReadFile(s.softirq)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	ns, err = strconv.ParseInt(first, 10, 64)
	return ns + clock(unix.CLOCK_THREAD_CPUTIME_ID), err
}

// datagrams is how many the gateway's UDP has delivered: to a reader, or to an
// encapsulation that kept them.
func datagrams() (n uint64, err error) {
	text, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		// The first line of the two names the columns; InDatagrams leads.
		if _, err := fmt.Sscanf(line, "Udp: %d", &n); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("no count of datagrams in %q", text)
}
