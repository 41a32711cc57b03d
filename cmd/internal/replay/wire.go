package replay

import (
	"encoding/binary"
	"fmt"

	"github.com/ikepulse/ikepulse/cmd/internal/pcap"
)

const (
	ethernetHeader = 14

	// maxFrame is the longest frame that can hold an IP datagram, and a little
	// less than what the kernel's test run takes.
	maxFrame = ethernetHeader + 2*4 + 40 + 65535
)

// wire returns the frame as it was on the wire, and how much of it was
// captured. IP without Ethernet gets a made-up header; what the capture cut off
// is zeros, which no header in it says otherwise. What the frame carries must
// have been captured.
func wire(f pcap.Frame) (frame []byte, captured int, err error) {
	etherType, offset, err := linkHeader(f)
	if err != nil {
		return nil, 0, err
	}
	if offset > len(f.Data) {
		return nil, 0, fmt.Errorf("a frame of %d bytes", len(f.Data))
	}
	if len(f.Data) < f.Length && len(f.Data) < least(f.LinkType, offset) {
		return nil, 0, fmt.Errorf("%d bytes of a frame of %d", len(f.Data), f.Length)
	}
	if f.LinkType != pcap.Ethernet {
		frame = madeUp(etherType)
	}
	frame = append(frame, f.Data[offset:]...)
	captured = len(frame)
	if missing := min(f.Length-len(f.Data), maxFrame-len(frame)); missing > 0 {
		frame = append(frame, make([]byte, missing)...)
	}
	if len(frame) < ethernetHeader || len(frame) > maxFrame {
		return nil, 0, fmt.Errorf("a frame of %d bytes: the kernel runs %d to %d", len(frame), ethernetHeader, maxFrame)
	}
	return frame, captured, nil
}

// least is how many bytes of a frame say what it carries: its link header, or
// where there is none that says it, the version of IP behind.
func least(linkType pcap.LinkType, offset int) int {
	switch linkType {
	case pcap.Ethernet:
		return ethernetHeader
	case pcap.Cooked, pcap.Cooked2:
		return offset
	}
	return offset + 1
}

// madeUp is a header between two stations that nobody has.
func madeUp(etherType uint16) []byte {
	header := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	return binary.BigEndian.AppendUint16(header, etherType)
}

// linkHeader returns what is in a frame that is not Ethernet, and where.
func linkHeader(f pcap.Frame) (etherType uint16, offset int, err error) {
	switch f.LinkType {
	case pcap.Ethernet:
		return 0, 0, nil
	case pcap.IPv4:
		return etherIPv4, 0, nil
	case pcap.IPv6:
		return etherIPv6, 0, nil
	case pcap.Raw, pcap.RawBSD, pcap.RawOpen:
		return byVersion(f.Data), 0, nil
	case pcap.Null, pcap.Loop:
		// The numbers of address families differ between systems.
		return byVersion(f.Data[min(4, len(f.Data)):]), 4, nil
	case pcap.Cooked:
		return cooked(f.Data, 14), 16, nil
	case pcap.Cooked2:
		return cooked(f.Data, 0), 20, nil
	}
	return 0, 0, fmt.Errorf("link type %d", f.LinkType)
}

// byVersion is 0, which the program does not take for IP, for what is neither.
func byVersion(b []byte) uint16 {
	if len(b) > 0 && b[0]>>4 == 4 {
		return etherIPv4
	}
	if len(b) > 0 && b[0]>>4 == 6 {
		return etherIPv6
	}
	return 0
}

func cooked(b []byte, at int) uint16 {
	if at+2 > len(b) {
		return 0
	}
	return binary.BigEndian.Uint16(b[at:])
}
