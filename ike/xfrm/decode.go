package xfrm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The layouts are those of linux/xfrm.h on 64-bit machines. Only what is
// needed of a structure is named; sizes are the structures' own.
const (
	sizeofAttr   = 4
	alignment    = 4
	sizeofUserSA = 224 // struct xfrm_usersa_info
	sizeofID     = 24  // struct xfrm_usersa_id
	sizeofExpire = sizeofUserSA + 8
	sizeofMap    = 64 // struct xfrm_user_mapping
)

var errShort = errors.New("the message is shorter than its structure")

// eventKind is what a message tells.
type eventKind uint8

const (
	eventOther  eventKind = iota // nothing that changes what there is
	eventSet                     // there is a state, or it changed: NEWSA, UPDSA
	eventGone                    // DELSA, or EXPIRE of the hard sort
	eventMoved                   // MAPPING
	eventFlush                   // FLUSHSA: all of a protocol are gone
	eventResync                  // states changed, and no event says how
)

type event struct {
	kind    eventKind
	sa      SA      // Set; Gone: of use is the key alone
	mapping Mapping // Moved
	proto   uint8   // Flush; 0: every one
}

// decode reads a message. It keeps nothing of body.
func decode(kind uint16, body []byte) (event, error) {
	switch nl.XfrmMsgType(kind) {
	case nl.XFRM_MSG_NEWSA, nl.XFRM_MSG_UPDSA:
		sa, err := decodeSA(body)
		return event{kind: eventSet, sa: sa}, err
	case nl.XFRM_MSG_DELSA:
		return decodeDelete(body)
	case nl.XFRM_MSG_EXPIRE:
		return decodeExpire(body)
	case nl.XFRM_MSG_MAPPING:
		return decodeMapping(body)
	case nl.XFRM_MSG_FLUSHSA:
		if len(body) < 1 {
			return event{}, errShort
		}
		return event{kind: eventFlush, proto: flushed(body[0])}, nil
	case nl.XFRM_MSG_MIGRATE:
		// The kernel replaces states and tells of the policies alone.
		return event{kind: eventResync}, nil
	}
	return event{}, nil
}

// flushed: IPSEC_PROTO_ANY stands for every protocol here, and so does 0.
func flushed(proto uint8) uint8 {
	if proto == unix.IPPROTO_RAW {
		return 0
	}
	return proto
}

// decodeSA reads struct xfrm_usersa_info and the attributes after it.
func decodeSA(body []byte) (sa SA, err error) {
	if len(body) < sizeofUserSA {
		return SA{}, errShort
	}
	if sa, err = decodeUserSA(body[:sizeofUserSA]); err != nil {
		return SA{}, err
	}
	if err = sa.decodeAttributes(body[sizeofUserSA:]); err != nil {
		return SA{}, err
	}
	return sa, nil
}

// decodeUserSA reads b of the right size: selector (56), id {daddr, spi, proto},
// saddr, lifetimes (64), current {bytes, packets, added, used}, statistics
// {window, replayed, integrity}, seq, reqid, family, mode, window, flags.
func decodeUserSA(b []byte) (sa SA, err error) {
	native := binary.NativeEndian
	family := native.Uint16(b[212:])
	dst, ok := address(family, b[56:72])
	src, alsoOK := address(family, b[80:96])
	if !ok || !alsoOK {
		return SA{}, fmt.Errorf("address family %d", family)
	}
	return SA{
		Key: Key{Dst: dst, SPI: binary.BigEndian.Uint32(b[72:]), Proto: b[76]},
		Src: src, Larval: true,
		Reqid:        native.Uint32(b[208:]),
		ReplayWindow: uint32(b[215]),
		ESN:          b[216]&stateESN != 0,
		Counters: Counters{
			Bytes: native.Uint64(b[160:]), Packets: native.Uint64(b[168:]),
			Added: instant(native.Uint64(b[176:])), FirstUsed: instant(native.Uint64(b[184:])),
			Replayed: native.Uint32(b[196:]), IntegrityFailed: native.Uint32(b[200:]),
		},
	}, nil
}

const stateESN = 128 // XFRM_STATE_ESN

// decodeAttributes reads what follows the structure. The contents of
// algorithms are keys: only that there is one is noted.
func (s *SA) decodeAttributes(b []byte) error {
	return eachAttribute(b, func(kind uint16, value []byte) error {
		native := binary.NativeEndian
		if size, known := attributeSizes[kind]; known && len(value) < size {
			return fmt.Errorf("attribute %d has %d bytes", kind, len(value))
		}
		switch kind {
		case nl.XFRMA_ALG_AEAD, nl.XFRMA_ALG_CRYPT, nl.XFRMA_ALG_AUTH, nl.XFRMA_ALG_AUTH_TRUNC:
			s.Larval = false
		case nl.XFRMA_ENCAP: // type, source and destination port
			s.Encap = true
			s.SrcPort, s.DstPort = binary.BigEndian.Uint16(value[2:]), binary.BigEndian.Uint16(value[4:])
		case nl.XFRMA_REPLAY_ESN_VAL: // the structure's own window does not count then
			s.ReplayWindow = native.Uint32(value[20:])
		case nl.XFRMA_LASTUSED:
			s.LastUsed = instant(native.Uint64(value))
		case nl.XFRMA_MARK:
			s.Mark = Mark{native.Uint32(value), native.Uint32(value[4:])}
		case nl.XFRMA_IF_ID:
			s.IfID = native.Uint32(value)
		case nl.XFRMA_SA_DIR:
			s.Direction = direction(value[0])
		}
		return nil
	})
}

// attributeSizes are the least that is read of each.
var attributeSizes = map[uint16]int{
	nl.XFRMA_ENCAP: 6, nl.XFRMA_REPLAY_ESN_VAL: 24, nl.XFRMA_LASTUSED: 8,
	nl.XFRMA_MARK: 8, nl.XFRMA_IF_ID: 4, nl.XFRMA_SA_DIR: 1,
}

func direction(b byte) Direction {
	switch b {
	case 1: // XFRM_SA_DIR_IN
		return Inbound
	case 2: // XFRM_SA_DIR_OUT
		return Outbound
	}
	return DirectionUnknown
}

// eachAttribute calls f for each attribute of b, up to its first error.
func eachAttribute(b []byte, f func(kind uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < sizeofAttr {
			return errShort
		}
		size := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) & nlaTypeMask
		if size < sizeofAttr || size > len(b) {
			return fmt.Errorf("attribute %d says that it has %d bytes, of %d", kind, size, len(b))
		}
		if err := f(kind, b[sizeofAttr:size]); err != nil {
			return err
		}
		b = b[min(len(b), aligned(size)):]
	}
	return nil
}

const nlaTypeMask = 0x3fff // the two bits above are flags

func aligned(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// decodeDelete reads struct xfrm_usersa_id. The state that follows is no news.
func decodeDelete(body []byte) (event, error) {
	key, err := decodeID(body)
	if err != nil {
		return event{}, err
	}
	return event{kind: eventGone, sa: SA{Key: key}}, nil
}

// decodeID reads {daddr, spi, family, proto}.
func decodeID(b []byte) (Key, error) {
	if len(b) < sizeofID {
		return Key{}, errShort
	}
	family := binary.NativeEndian.Uint16(b[20:])
	dst, ok := address(family, b[:16])
	if !ok {
		return Key{}, fmt.Errorf("address family %d", family)
	}
	return Key{Dst: dst, SPI: binary.BigEndian.Uint32(b[16:]), Proto: b[22]}, nil
}

// decodeExpire reads struct xfrm_user_expire {state, hard}. At a hard end the
// kernel has deleted the state, and sends no DELSA; at a soft one it works on.
func decodeExpire(body []byte) (event, error) {
	if len(body) < sizeofExpire {
		return event{}, errShort
	}
	sa, err := decodeUserSA(body[:sizeofUserSA])
	if err != nil || body[sizeofUserSA] == 0 {
		return event{}, err
	}
	return event{kind: eventGone, sa: SA{Key: sa.Key}}, nil
}

// decodeMapping reads struct xfrm_user_mapping {id, reqid, old_saddr,
// new_saddr, old_sport, new_sport}.
func decodeMapping(b []byte) (event, error) {
	if len(b) < sizeofMap {
		return event{}, errShort
	}
	key, err := decodeID(b)
	if err != nil {
		return event{}, err
	}
	family := binary.NativeEndian.Uint16(b[20:])
	before, _ := address(family, b[28:44])
	after, _ := address(family, b[44:60])
	return event{kind: eventMoved, mapping: Mapping{
		Key: key,
		Old: netip.AddrPortFrom(before, binary.BigEndian.Uint16(b[60:])),
		New: netip.AddrPortFrom(after, binary.BigEndian.Uint16(b[62:])),
	}}, nil
}

// address reads an xfrm_address_t of 16 bytes, of which IPv4 takes four.
func address(family uint16, b []byte) (netip.Addr, bool) {
	switch family {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(b)), true
	case unix.AF_INET6:
		return netip.AddrFrom16([16]byte(b)), true
	}
	return netip.Addr{}, false
}

// instant makes a time of the kernel's seconds, of which 0 means never.
func instant(seconds uint64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}
