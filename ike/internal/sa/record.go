package sa

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// RecordSize is the room that an encoded record needs at most.
const RecordSize = 4096

// recordVersion changes with every change of the encoding.
const recordVersion = 2

// Record is all of an established SA that must survive a restart. Its state is
// flat: no field but the connection, which is shared and goes by its name, and the
// two messages holds a pointer, and those live for one exchange only. The SA is its only writer.
type Record struct {
	State       State
	Role        Role
	LocalNATted bool // somebody rewrites our address
	PeerNATted  bool
	SPI         uint64 // ours
	PeerSPI     uint64
	Local       endpoint
	Remote      endpoint
	Suite       suite.Choice
	Keys        suite.IKEKeys
	Conn        *policy.Connection // nil until a responder knows its peer
	Peer        flatID

	NextRequest  uint32 // message ID of our next request
	NextExpected uint32 // message ID of the peer's next request
	IV           uint64 // the next counter to seal with
	IVMark       uint64 // counters below it are reserved; a restart begins here
	RequestHash  [16]byte

	Created       mono.Time
	LastIKE       mono.Time // newest fresh, authenticated message of the peer
	LastRoundTrip mono.Time // newest answer to a request of ours
	LastSent      mono.Time // newest message of ours

	Child childRecord // InSPI 0: there is none

	Request  []byte // ours, outstanding, as it was sent
	Response []byte // ours, to the peer's last request
}

// maxKey is the longest key that suite.Key holds.
const maxKey = 68

// ivStep is how many IVs one persisted mark reserves.
const ivStep = 1 << 16

// endpoint is a UDP endpoint without a pointer; family 0 is none.
type endpoint struct {
	addr [16]byte
	port uint16
	v4   bool
}

func endpointOf(a netip.AddrPort) endpoint {
	return endpoint{a.Addr().As16(), a.Port(), a.Addr().Unmap().Is4()}
}

func (e endpoint) AddrPort() netip.AddrPort {
	a := netip.AddrFrom16(e.addr)
	if e.v4 {
		a = a.Unmap()
	}
	return netip.AddrPortFrom(a, e.port)
}

// flatID is an ID without a pointer.
type flatID struct {
	kind wire.IDType
	n    uint8
	data [policy.MaxID]byte
}

func flatten(id policy.ID) (f flatID) {
	f.kind, f.n = id.Kind, uint8(copy(f.data[:], id.Data))
	return f
}

func (f *flatID) ID() policy.ID { return policy.ID{Kind: f.kind, Data: string(f.data[:f.n])} }

// childRecord is a Child SA without a pointer.
type childRecord struct {
	InSPI, OutSPI     uint32
	ReqID             uint32
	Suite             suite.Choice
	InEncr, InInteg   suite.Key
	OutEncr, OutInteg suite.Key
	NLocal, NRemote   uint8
	Local, Remote     [maxSelectors]flatSelector
	VIPs              [2]flatAddr // one a family
}

type flatAddr struct {
	family uint8 // 0, 4 or 6
	addr   [16]byte
}

type flatSelector struct {
	v4         bool
	proto      uint8
	start, end uint16
	from, to   [16]byte
}

func flattenSelectors(in []wire.Selector, out *[maxSelectors]flatSelector) uint8 {
	for i, s := range in {
		out[i] = flatSelector{s.Start.Is4(), s.Protocol, s.StartPort, s.EndPort, s.Start.As16(), s.End.As16()}
	}
	return uint8(len(in))
}

func (f flatSelector) selector() wire.Selector {
	s := wire.Selector{Protocol: f.proto, StartPort: f.start, EndPort: f.end,
		Start: netip.AddrFrom16(f.from), End: netip.AddrFrom16(f.to)}
	if f.v4 {
		s.Start, s.End = s.Start.Unmap(), s.End.Unmap()
	}
	return s
}

func selectorsOf(in []flatSelector) []wire.Selector {
	out := make([]wire.Selector, len(in))
	for i, f := range in {
		out[i] = f.selector()
	}
	return out
}

func (c *childRecord) setVIPs(addrs []netip.Addr) {
	c.VIPs = [2]flatAddr{}
	for _, a := range addrs {
		if a.Is4() {
			c.VIPs[0] = flatAddr{4, a.As16()}
		} else {
			c.VIPs[1] = flatAddr{6, a.As16()}
		}
	}
}

func (c *childRecord) vips() (out []netip.Addr) {
	for _, f := range c.VIPs {
		if a := netip.AddrFrom16(f.addr); f.family != 0 {
			out = append(out, a.Unmap())
		}
	}
	return out
}

var (
	errRecordSize     = errors.New("record is truncated or too long")
	errRecordVersion  = errors.New("record is of another version")
	errRecordConn     = errors.New("record is of a connection that is not configured")
	errRecordChecksum = errors.New("record's checksum is wrong")
)

// AppendBinary encodes the record: version, body, and a checksum over both.
// The encoding holds keys.
func (r *Record) AppendBinary(b []byte) []byte {
	start := len(b)
	e := encoder{binary.LittleEndian.AppendUint32(b, recordVersion)}
	r.fields(&e)
	sum := sha256.Sum256(e.b[start:])
	return append(e.b, sum[:16]...)
}

// longestMessage is that of the requests and answers that follow IKE_AUTH: a
// DELETE, under AES-CBC and HMAC-SHA2-512.
const longestMessage = 96

// Room is how much longer a later record of the SA may be, beside this first one:
// it has a request and an answer at once, and no longer the keys of the handshake.
func (r *Record) Room() int {
	handshake := len(r.Keys.Pi.Bytes()) + len(r.Keys.Pr.Bytes())
	return max(0, longestMessage-len(r.Request)+max(0, longestMessage-len(r.Response))-handshake)
}

// Decode reads what AppendBinary wrote, for connections by their names; trailing
// bytes are an error, and so is a connection that there is none of.
func (r *Record) Decode(b []byte, conns *policy.Set) error {
	if len(b) < 20 {
		return errRecordSize
	}
	body, sum := b[:len(b)-16], b[len(b)-16:]
	if want := sha256.Sum256(body); string(want[:16]) != string(sum) {
		return errRecordChecksum
	}
	if binary.LittleEndian.Uint32(body) != recordVersion {
		return errRecordVersion
	}
	d := decoder{b: body[4:], conns: conns}
	r.fields(&d)
	if d.short || len(d.b) != 0 {
		return errRecordSize
	}
	if r.Conn == nil {
		return errRecordConn
	}
	// What lies below the mark may have been on the wire: it is given up.
	r.IV = r.IVMark
	return nil
}

// codec walks the fields of a record in one order for both directions.
type codec interface {
	u8(*uint8)
	bool(*bool)
	u16(*uint16)
	u32(*uint32)
	u64(*uint64)
	bytes([]byte)
	message(*[]byte)
	key(*suite.Key)
	conn(**policy.Connection)
}

func (r *Record) fields(c codec) {
	c.u8((*uint8)(&r.State))
	c.u8((*uint8)(&r.Role))
	c.bool(&r.LocalNATted)
	c.bool(&r.PeerNATted)
	c.u64(&r.SPI)
	c.u64(&r.PeerSPI)
	r.Local.fields(c)
	r.Remote.fields(c)
	choiceFields(c, &r.Suite)
	for _, k := range []*suite.Key{&r.Keys.D, &r.Keys.Ai, &r.Keys.Ar, &r.Keys.Ei, &r.Keys.Er, &r.Keys.Pi, &r.Keys.Pr} {
		c.key(k)
	}
	c.conn(&r.Conn)
	c.u8((*uint8)(&r.Peer.kind))
	c.u8(&r.Peer.n)
	c.bytes(r.Peer.data[:])
	c.u32(&r.NextRequest)
	c.u32(&r.NextExpected)
	c.u64(&r.IVMark)
	c.bytes(r.RequestHash[:])
	for _, t := range []*mono.Time{&r.Created, &r.LastIKE, &r.LastRoundTrip, &r.LastSent} {
		u := uint64(*t)
		c.u64(&u)
		*t = mono.Time(u)
	}
	r.Child.fields(c)
	c.message(&r.Request)
	c.message(&r.Response)
}

func (e *endpoint) fields(c codec) {
	c.bytes(e.addr[:])
	c.u16(&e.port)
	c.bool(&e.v4)
}

func choiceFields(c codec, ch *suite.Choice) {
	for _, p := range []*uint16{&ch.Encr, &ch.KeyBits, &ch.Integ, &ch.PRF, &ch.KE, &ch.ESN} {
		c.u16(p)
	}
}

func (r *childRecord) fields(c codec) {
	c.u32(&r.InSPI)
	c.u32(&r.OutSPI)
	c.u32(&r.ReqID)
	choiceFields(c, &r.Suite)
	for _, k := range []*suite.Key{&r.InEncr, &r.InInteg, &r.OutEncr, &r.OutInteg} {
		c.key(k)
	}
	c.u8(&r.NLocal)
	c.u8(&r.NRemote)
	for i := range maxSelectors {
		r.Local[i].fields(c)
		r.Remote[i].fields(c)
	}
	for i := range r.VIPs {
		c.u8(&r.VIPs[i].family)
		c.bytes(r.VIPs[i].addr[:])
	}
}

func (s *flatSelector) fields(c codec) {
	c.bool(&s.v4)
	c.u8(&s.proto)
	c.u16(&s.start)
	c.u16(&s.end)
	c.bytes(s.from[:])
	c.bytes(s.to[:])
}

type encoder struct{ b []byte }

func (e *encoder) u8(v *uint8)    { e.b = append(e.b, *v) }
func (e *encoder) u16(v *uint16)  { e.b = binary.LittleEndian.AppendUint16(e.b, *v) }
func (e *encoder) u32(v *uint32)  { e.b = binary.LittleEndian.AppendUint32(e.b, *v) }
func (e *encoder) u64(v *uint64)  { e.b = binary.LittleEndian.AppendUint64(e.b, *v) }
func (e *encoder) bytes(v []byte) { e.b = append(e.b, v...) }
func (e *encoder) bool(v *bool) {
	var n uint8
	if *v {
		n = 1
	}
	e.u8(&n)
}
func (e *encoder) message(v *[]byte) {
	n := uint16(len(*v))
	e.u16(&n)
	e.bytes(*v)
}
func (e *encoder) key(k *suite.Key) {
	b := k.Bytes()
	n := uint8(len(b))
	e.u8(&n)
	e.bytes(b)
}

func (e *encoder) conn(c **policy.Connection) {
	name := []byte((*c).Name)
	e.message(&name)
}

type decoder struct {
	b     []byte
	short bool
	conns *policy.Set
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.short = true
		d.b = nil
		return make([]byte, n)
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}
func (d *decoder) u8(v *uint8)    { *v = d.take(1)[0] }
func (d *decoder) u16(v *uint16)  { *v = binary.LittleEndian.Uint16(d.take(2)) }
func (d *decoder) u32(v *uint32)  { *v = binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) u64(v *uint64)  { *v = binary.LittleEndian.Uint64(d.take(8)) }
func (d *decoder) bytes(v []byte) { copy(v, d.take(len(v))) }
func (d *decoder) bool(v *bool)   { *v = d.take(1)[0] != 0 }
func (d *decoder) message(v *[]byte) {
	var n uint16
	d.u16(&n)
	*v = append([]byte(nil), d.take(int(n))...)
}
func (d *decoder) key(k *suite.Key) {
	var n uint8
	d.u8(&n)
	if n > maxKey {
		d.short, n = true, 0
	}
	k.Set(d.take(int(n)))
}
func (d *decoder) conn(c **policy.Connection) {
	var name []byte
	d.message(&name)
	*c = d.conns.ByName(string(name))
}
