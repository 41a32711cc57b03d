package lab

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

func TestHeldObjects(t *testing.T) {
	held := make(map[holding]bool)
	noteHeld(held, "pos:\t0\nflags:\t02000002\nlink_type:\txdp\nlink_id:\t5\nprog_tag:\t79aa95555f6b99c7\nprog_id:\t7\nifindex:\t2\n")
	noteHeld(held, "map_type:\t2\nmap_id:\t9\n")
	tests := []struct {
		object object
		want   bool
	}{
		{object{kind: "program", id: 7}, true},
		{object{kind: "map", id: 9}, true},
		{object{kind: "bpf-link", id: 5, program: 8}, true},
		{object{kind: "bpf-link", id: 6, program: 7}, true},
		{object{kind: "program", id: 5}, false},
		{object{kind: "map", id: 7}, false},
		{object{kind: "bpf-link", id: 7, program: 5}, false},
	}
	for _, tt := range tests {
		if got := tt.object.isIn(held); got != tt.want {
			t.Errorf("%+v held: %v, want %v", tt.object, got, tt.want)
		}
	}
}

// A raw socket hears every answer in its namespace; only the first to each of
// our own requests counts.
func TestPingCountsItsOwn(t *testing.T) {
	dst := netip.MustParseAddr("198.51.100.1")
	reply := func(kind icmp.Type, id, seq int) []byte {
		b, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: id, Seq: seq}}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := reply(ipv4.ICMPTypeEchoReply, 77, 1)
	tests := []struct {
		name string
		b    []byte
		from netip.Addr
		want int
	}{
		{"the answer", good, dst, 1},
		{"from somebody else", good, dst.Next(), 0},
		{"to another series", reply(ipv4.ICMPTypeEchoReply, 78, 1), dst, 0},
		{"to no request of ours", reply(ipv4.ICMPTypeEchoReply, 77, 2), dst, 0},
		{"to one answered before", reply(ipv4.ICMPTypeEchoReply, 77, 0), dst, 0},
		{"a request", reply(ipv4.ICMPTypeEcho, 77, 1), dst, 0},
		{"truncated", good[:7], dst, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &series{Ping: Ping{Dst: dst, Count: 2}, echo: echo4, id: 77, answered: []bool{true, false}}
			s.take(tt.b, &net.IPAddr{IP: tt.from.AsSlice()})
			if s.received != tt.want {
				t.Errorf("counted %d, want %d", s.received, tt.want)
			}
		})
	}
}
