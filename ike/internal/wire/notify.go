package wire

import "encoding/binary"

func (*Notify) Type() PayloadType { return TypeNotify }

// notify reads a notification of any kind; unknown kinds are the caller's to
// ignore. "If the SPI field is empty, this field [Protocol ID] MUST be sent as
// zero and MUST be ignored on receipt."
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Protocol ID  |   SPI Size    |      Notify Message Type      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                Security Parameter Index (SPI)                 ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                       Notification Data                       ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.10
func (c *cursor) notify() *Notify {
	n := &Notify{Protocol: ProtocolID(c.u8())}
	size := int(c.u8())
	n.Kind = NotifyType(c.u16())
	if !notifySPI(n.Protocol, size) {
		c.fail("SPI of %d bytes for %s", size, n.Protocol)
	}
	if size == 0 {
		n.Protocol = ProtoNone
	}
	n.SPI = c.bytes(size)
	n.Data = c.rest()
	return n
}

// notifySPI checks the SPI size: none, or that of the protocol; "for a
// notification concerning the IKE SA, the SPI Size MUST be zero". A protocol
// that we do not know may have any. RFC 7296 §3.10
func notifySPI(p ProtocolID, size int) bool {
	switch p {
	case ProtoIKE:
		return size == 0
	case ProtoAH, ProtoESP:
		return size == 0 || size == 4
	}
	return true
}

func (n *Notify) appendBody(b []byte) []byte {
	proto := n.Protocol
	if len(n.SPI) == 0 {
		proto = ProtoNone
	}
	b = append(b, byte(proto), byte(len(n.SPI)))
	b = binary.BigEndian.AppendUint16(b, uint16(n.Kind))
	b = append(b, n.SPI...)
	return append(b, n.Data...)
}

// IsError tells an error from a status notification. RFC 7296 §3.10.1
func (t NotifyType) IsError() bool { return t < InitialContact }

func (*Delete) Type() PayloadType { return TypeDelete }

// delete reads what the sender has deleted: the IKE SA, without SPIs, or Child
// SAs by the SPIs of 4 bytes that the sender receives on.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Protocol ID   |   SPI Size    |          Num of SPIs          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~               Security Parameter Index(es) (SPI)              ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.11
func (c *cursor) delete() *Delete {
	d := &Delete{Protocol: ProtocolID(c.u8())}
	size, count := int(c.u8()), int(c.u16())
	switch d.Protocol {
	case ProtoIKE:
		if size != 0 || count != 0 {
			c.fail("%d SPIs of %d bytes for the IKE SA", count, size)
		}
	case ProtoAH, ProtoESP:
		if size != 4 {
			c.fail("SPIs of %d bytes for %s", size, d.Protocol)
		}
	default:
		c.fail("protocol %d", uint8(d.Protocol))
	}
	if c.left() != 4*count {
		c.fail("%d SPIs announced, %d bytes for them", count, c.left())
	}
	for c.left() > 0 {
		d.SPIs = append(d.SPIs, c.u32())
	}
	return d
}

func (d *Delete) appendBody(b []byte) []byte {
	if d.Protocol == ProtoIKE {
		return append(b, byte(ProtoIKE), 0, 0, 0)
	}
	b = append(b, byte(d.Protocol), 4)
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.SPIs)))
	for _, spi := range d.SPIs {
		b = binary.BigEndian.AppendUint32(b, spi)
	}
	return b
}
