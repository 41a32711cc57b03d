package wire

import "net/netip"

// Payload is one decoded payload. The set is closed: only this package makes
// them. Byte fields of a decoded payload are copies, never views of the input.
type Payload interface {
	Type() PayloadType
	appendBody(b []byte) []byte
}

// SA carries the proposals of a security association. RFC 7296 §3.3
type SA struct{ Proposals []Proposal }

// Proposal is one numbered offer with its protocol, SPI and transforms.
type Proposal struct {
	Number     uint8
	Protocol   ProtocolID
	SPI        []byte // empty, 4 (ESP, AH) or 8 bytes (IKE rekeying)
	Transforms []Transform
}

// Transform is one algorithm of a proposal. RFC 7296 §3.3.2
type Transform struct {
	Type    TransformType
	ID      uint16
	KeyBits uint16 // the Key Length attribute; 0 where there is none
	// Unknown is set when the transform has an attribute other than Key
	// Length: such a transform must not be chosen. RFC 7296 §3.3.6
	Unknown bool
}

// KE is a key exchange public value. RFC 7296 §3.4
type KE struct {
	Group uint16
	Data  []byte
}

// ID is an identification payload, IDi or IDr by T. RFC 7296 §3.5
type ID struct {
	T    PayloadType
	Kind IDType
	Data []byte
}

// Auth is the authentication payload. RFC 7296 §3.8
type Auth struct {
	Method AuthMethod
	Data   []byte
}

// Nonce carries Ni or Nr, 16 to 256 bytes. RFC 7296 §3.9
type Nonce struct{ Data []byte }

// Notify is a status or error notification. RFC 7296 §3.10
type Notify struct {
	Protocol ProtocolID
	SPI      []byte
	Kind     NotifyType
	Data     []byte
}

// Delete names SAs that the sender has deleted; for the IKE SA it is empty.
// RFC 7296 §3.11
type Delete struct {
	Protocol ProtocolID
	SPIs     []uint32 // ESP or AH, host order
}

// TS is a list of traffic selectors, TSi or TSr by T. RFC 7296 §3.13
type TS struct {
	T         PayloadType
	Selectors []Selector
}

// Selector is an address range with protocol and ports. Start and End are of
// one family, Start <= End. Ports 0–65535 mean any, 65535–0 mean OPAQUE.
type Selector struct {
	Protocol           uint8 // 0 is any
	StartPort, EndPort uint16
	Start, End         netip.Addr
}

// CP is a configuration payload. RFC 7296 §3.15
type CP struct {
	Kind  CPType
	Attrs []CPAttr
}

// CPAttr is one configuration attribute; Value is empty in a bare request.
type CPAttr struct {
	Type  uint16
	Value []byte
}

// Encrypted is an SK payload as it stood in the message: Offset is where its
// generic header begins, Next the type of the first payload inside, Body its
// content after the generic header (IV, ciphertext, ICV). RFC 7296 §3.14
type Encrypted struct {
	Offset int
	Next   PayloadType
	Body   []byte
}

// Raw is a payload that nobody here interprets: CERT, CERTREQ, Vendor ID, EAP,
// SKF, and unknown ones without the critical bit.
type Raw struct {
	T        PayloadType
	Critical bool
	Next     PayloadType // SKF only: the type of the first payload inside
	Data     []byte
}

// Find gives the first payload of kind T, such as *SA or *Nonce. For *ID and
// *TS, which come in pairs, use FindID and FindTS.
func Find[T Payload](ps []Payload) (T, bool) {
	return findIf(ps, func(T) bool { return true })
}

// FindNotify gives the first notification of that kind.
func FindNotify(ps []Payload, kind NotifyType) (*Notify, bool) {
	return findIf(ps, func(n *Notify) bool { return n.Kind == kind })
}

// FindID gives the IDi or the IDr.
func FindID(ps []Payload, t PayloadType) (*ID, bool) {
	return findIf(ps, func(id *ID) bool { return id.T == t })
}

// FindTS gives the TSi or the TSr.
func FindTS(ps []Payload, t PayloadType) (*TS, bool) {
	return findIf(ps, func(ts *TS) bool { return ts.T == t })
}

func findIf[T Payload](ps []Payload, want func(T) bool) (T, bool) {
	for _, p := range ps {
		if v, ok := p.(T); ok && want(v) {
			return v, true
		}
	}
	var none T
	return none, false
}
