package pcap

import (
	"encoding/binary"
	"fmt"
	"time"
)

// What a classic capture begins with, in the byte order of the rest.
const (
	magicMicroseconds = 0xa1b2c3d4
	magicNanoseconds  = 0xa1b23c4d

	classicHeader = 24
	classicFrame  = 16
	linkTypeBits  = 0xffff // above them: the length of a frame check sequence
)

// classic is the format of libpcap since 1998.
type classic struct {
	*input
	linkType LinkType
	fraction time.Duration // the unit of the second half of a time
}

func newClassic(in *input, magic MagicError) (format, error) {
	c := &classic{input: in}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(magic[:]) {
		case magicMicroseconds:
			c.order, c.fraction = order, time.Microsecond
		case magicNanoseconds:
			c.order, c.fraction = order, time.Nanosecond
		}
	}
	if c.order == nil {
		return nil, magic
	}
	header, err := in.more(classicHeader)
	if err != nil {
		return nil, err
	}
	c.linkType = LinkType(c.order.Uint32(header[20:]) & linkTypeBits)
	return c, nil
}

func (c *classic) next(f *Frame) error {
	header, err := c.take(classicFrame)
	if err != nil {
		return err
	}
	seconds, fraction := c.order.Uint32(header), c.order.Uint32(header[4:])
	captured, length := c.order.Uint32(header[8:]), c.order.Uint32(header[12:])
	if captured > maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes, %d of them captured", ErrFormat, length, captured)
	}
	f.Time = time.Unix(int64(seconds), int64(fraction)*int64(c.fraction)).UTC()
	f.LinkType = c.linkType
	f.Length = wireLength(length)
	f.Data, err = c.more(int(captured))
	return err
}
