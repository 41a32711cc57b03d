package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Ping is a series of ICMP echo requests; the responder is a kernel.
type Ping struct {
	Src, Dst netip.Addr // Src may be invalid: the kernel chooses
	Count    int
	Interval time.Duration // between requests
	Timeout  time.Duration // wait for answers after the last request
}

// echo is what differs between the two families.
type echo struct {
	network  string
	protocol int
	request  icmp.Type
	reply    icmp.Type
}

var (
	echo4 = echo{"ip4:1", 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply}
	echo6 = echo{"ip6:58", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply}
)

// Ping sends the series and counts the answers, each once. It returns early
// when all are answered, or with ctx's error. A request that cannot be sent
// (no route) counts as unanswered and shows in err; the counts stand anyway.
func (n *Namespace) Ping(ctx context.Context, p Ping) (sent, received int, err error) {
	kind, local := echo4, netip.IPv4Unspecified()
	if p.Dst.Is6() {
		kind, local = echo6, netip.IPv6Unspecified()
	}
	if p.Src.IsValid() {
		local = p.Src
	}
	var conn *icmp.PacketConn
	err = n.Do(func() (err error) {
		conn, err = icmp.ListenPacket(kind.network, local.String())
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("ping %s from %s in namespace %s: %w", p.Dst, local, n.name, err)
	}
	defer conn.Close()
	s := &series{Ping: p, echo: kind, conn: conn, id: rand.IntN(1 << 16), answered: make([]bool, p.Count)}
	return s.run(ctx)
}

// series is a Ping under way; its goroutine owns it.
type series struct {
	Ping
	echo
	conn     *icmp.PacketConn
	id       int
	answered []bool
	received int
}

func (s *series) run(ctx context.Context) (sent, received int, err error) {
	// A done context makes a blocked read return at once.
	defer context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })()
	next := time.Now()
	for seq := range s.Count {
		err = errors.Join(err, s.send(seq))
		sent++
		next = next.Add(s.Interval)
		wait := time.Until(next)
		if seq == s.Count-1 {
			wait = s.Timeout
		}
		if e := s.collect(ctx, time.Now().Add(wait), seq == s.Count-1); e != nil {
			return sent, s.received, e
		}
	}
	return sent, s.received, err
}

func (s *series) send(seq int) error {
	m := icmp.Message{Type: s.request, Body: &icmp.Echo{ID: s.id, Seq: seq, Data: []byte("ikepulse lab echo")}}
	// The kernel computes the ICMPv6 checksum of a raw socket itself.
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = s.conn.WriteTo(b, &net.IPAddr{IP: s.Dst.AsSlice()})
	return err
}

// collect counts answers until the deadline; the last time, only until there
// is none to wait for.
func (s *series) collect(ctx context.Context, deadline time.Time, last bool) error {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for !last || s.received < s.Count {
		// After the deadline was set: a context that ends later moves it.
		if err := ctx.Err(); err != nil {
			return err
		}
		length, from, err := s.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		s.take(buf[:length], from)
	}
	return nil
}

// take counts b if it is a first answer to one of our requests.
func (s *series) take(b []byte, from net.Addr) {
	addr, ok := netip.AddrFromSlice(from.(*net.IPAddr).IP)
	if !ok || addr.Unmap() != s.Dst {
		return
	}
	m, err := icmp.ParseMessage(s.protocol, b)
	if err != nil || m.Type != s.reply {
		return
	}
	body, ok := m.Body.(*icmp.Echo)
	if !ok || body.ID != s.id || body.Seq >= s.Count || s.answered[body.Seq] {
		return
	}
	s.answered[body.Seq] = true
	s.received++
}
