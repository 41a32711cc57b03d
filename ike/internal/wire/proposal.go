package wire

import "encoding/binary"

// The first byte of a substructure: whether another of its kind follows.
// RFC 7296 §3.3.1, §3.3.2
const (
	lastSubstructure = 0
	moreProposals    = 2
	moreTransforms   = 3
)

// Transform attributes. RFC 7296 §3.3.5
const (
	attrFixed     = 0x8000 // the value stands in place of the length
	attrKeyLength = attrFixed | 14
)

func (*SA) Type() PayloadType { return TypeSA }

func (c *cursor) sa() *SA {
	sa := new(SA)
	if c.left() == 0 {
		c.fail("no proposal")
	}
	budget := maxTransforms
	for c.left() > 0 {
		if len(sa.Proposals) == maxProposals {
			c.fail("more than %d proposals", maxProposals)
		}
		p := c.proposal(&budget)
		if n := len(sa.Proposals); n > 0 && p.Number < sa.Proposals[n-1].Number {
			c.fail("proposal %d after %d", p.Number, sa.Proposals[n-1].Number)
		}
		sa.Proposals = append(sa.Proposals, p)
	}
	return sa
}

// proposal reads one proposal; budget is what the payload may still have of
// transforms.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Last Substruc |   RESERVED    |         Proposal Length       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                        SPI (variable)                         ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                        <Transforms>                           ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.3.1
func (c *cursor) proposal(budget *int) Proposal {
	b := c.substructure("proposal", moreProposals)
	p := Proposal{Number: b.u8(), Protocol: ProtocolID(b.u8())}
	size, count := int(b.u8()), int(b.u8())
	*budget -= count
	switch {
	case !proposalSPI(p.Protocol, size):
		b.fail("SPI of %d bytes for %s", size, p.Protocol)
	case count == 0:
		b.fail("proposal without transforms")
	case *budget < 0:
		b.fail("more than %d transforms", maxTransforms)
	}
	p.SPI = b.bytes(size)
	for b.left() > 0 && len(p.Transforms) < count {
		p.Transforms = append(p.Transforms, b.transform())
	}
	if len(p.Transforms) < count {
		b.fail("%d transforms announced, %d found", count, len(p.Transforms))
	}
	b.end()
	return p
}

// proposalSPI checks the SPI size: the IKE SA's own SPIs stand in the header,
// except when it is rekeyed. A protocol that we do not know may have any.
// RFC 7296 §3.3.1
func proposalSPI(p ProtocolID, size int) bool {
	switch p {
	case ProtoIKE:
		return size == 0 || size == 8
	case ProtoAH, ProtoESP:
		return size == 4
	}
	return true
}

// substructure takes a proposal or transform, past its length: the first byte
// says whether more follow, and must be right about it.
func (c *cursor) substructure(what string, more uint8) cursor {
	mark := c.u8()
	c.skip(1)
	b := c.body()
	want := more
	if c.left() == 0 {
		want = lastSubstructure
	}
	if mark != want {
		c.fail("%s marked %d where %d belongs", what, mark, want)
	}
	return b
}

// transform reads one transform.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Last Substruc |   RESERVED    |        Transform Length       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Transform Type |   RESERVED    |          Transform ID         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                      Transform Attributes                     ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.3.2
func (c *cursor) transform() Transform {
	b := c.substructure("transform", moreTransforms)
	t := Transform{Type: TransformType(b.u8())}
	b.skip(1)
	t.ID = b.u16()
	for b.left() > 0 {
		b.attribute(&t)
	}
	return t
}

// attribute reads one attribute. One Key Length, not 0, in its two-byte form
// is the only one there is; anything else leaves a transform that must not be
// chosen. RFC 7296 §3.3.5, §3.3.6
func (c *cursor) attribute(t *Transform) {
	kind, value := c.u16(), c.u16()
	if kind == attrKeyLength && value != 0 && t.KeyBits == 0 {
		t.KeyBits = value
		return
	}
	t.Unknown = true
	if kind&attrFixed == 0 {
		c.skip(int(value))
	}
}

func (sa *SA) appendBody(b []byte) []byte {
	for i := range sa.Proposals {
		b = sa.Proposals[i].append(b, mark(i, len(sa.Proposals), moreProposals))
	}
	return b
}

// mark is the first byte of substructure i of n.
func mark(i, n int, more byte) byte {
	if i == n-1 {
		return lastSubstructure
	}
	return more
}

func (p *Proposal) append(b []byte, first byte) []byte {
	start := len(b)
	b = append(b, first, 0, 0, 0, p.Number, byte(p.Protocol), byte(len(p.SPI)), byte(len(p.Transforms)))
	b = append(b, p.SPI...)
	for i, t := range p.Transforms {
		b = t.append(b, mark(i, len(p.Transforms), moreTransforms))
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// append writes a transform. An attribute that was not understood cannot be
// written again; a Key Length of 0, which no algorithm has, stands for it, so
// that the transform stays one that must not be chosen.
func (t Transform) append(b []byte, mark byte) []byte {
	start := len(b)
	b = append(b, mark, 0, 0, 0, byte(t.Type), 0)
	b = binary.BigEndian.AppendUint16(b, t.ID)
	if t.KeyBits != 0 {
		b = appendKeyLength(b, t.KeyBits)
	}
	if t.Unknown {
		b = appendKeyLength(b, 0)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

func appendKeyLength(b []byte, bits uint16) []byte {
	b = binary.BigEndian.AppendUint16(b, attrKeyLength)
	return binary.BigEndian.AppendUint16(b, bits)
}
