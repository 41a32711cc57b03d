package lab

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// chatPause lies between two packets of a chat.
const chatPause = 2 * time.Millisecond

// Chat is one of two ends that send each other numbered UDP packets all the time,
// whether they arrive or not.
type Chat struct {
	conn *net.UDPConn
	quit chan struct{}
	done sync.WaitGroup
	end  func() error // once

	mu    sync.Mutex
	heard map[int]bool
}

// Chat begins to send from one address of the namespace to another end, which is
// made in the same way there. text is in every packet.
func (n *Namespace) Chat(from, to netip.AddrPort, text string) (*Chat, error) {
	c := &Chat{quit: make(chan struct{}), heard: map[int]bool{}}
	err := n.Do(func() (err error) {
		c.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(from))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("chat of %v in namespace %s: %w", from, n.name, err)
	}
	c.end = sync.OnceValue(c.close)
	c.done.Go(func() { c.say(to, text) }) // stops with quit
	c.done.Go(c.hear)                     // stops when say has closed the socket
	return c, n.lab.own(c.end)
}

func (c *Chat) say(to netip.AddrPort, text string) {
	defer c.conn.Close()
	tick := time.NewTicker(chatPause)
	defer tick.Stop()
	for i := 1; ; i++ {
		select {
		case <-c.quit:
			return
		case <-tick.C:
		}
		// An error is one of the things that may stand in its way.
		_, _ = c.conn.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %d", text, i), to)
	}
}

func (c *Chat) hear() {
	b := make([]byte, 1500)
	for {
		n, err := c.conn.Read(b)
		select {
		case <-c.quit:
			return
		default:
		}
		if err != nil {
			continue // told of an earlier packet that did not arrive
		}
		c.mu.Lock()
		c.heard[ChatNumber(b[:n])] = true
		c.mu.Unlock()
	}
}

// ChatNumber is that of a chat's packet; 0 if it is none.
func ChatNumber(payload []byte) int {
	n, _ := strconv.Atoi(string(payload[bytes.LastIndexByte(payload, ' ')+1:])) // 0 with an error
	return n
}

// Heard are the numbers of the packets that have arrived.
func (c *Chat) Heard() map[int]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.heard)
}

// End ends it.
func (c *Chat) End() { _ = c.end() }

func (c *Chat) close() error {
	close(c.quit)
	c.done.Wait()
	return nil
}
