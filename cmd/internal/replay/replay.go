// Package replay runs the frames of a capture through the real XDP program, as
// if each had come in at the gateway, and says what the program made of it:
// verdict and reason are read from the program, not computed again.
package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/cmd/internal/pcap"
)

// Options say what the program knows when the frames come.
type Options struct {
	SAs      []SA         // known before the first frame
	AllSAs   bool         // and every inbound one that the capture has
	Locals   []netip.Addr // our addresses; none: every destination is
	NATTPort uint16       // 0: 4500
}

// notRunnable stands for verdict, reason and class of a frame that the program
// cannot be given.
const notRunnable = "not_runnable"

// Line is what is said of one frame.
type Line struct {
	Frame   int    `json:"frame"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Class   string `json:"class"`
	// CapturedBytes is less than what was on the wire: the rest is zeros here.
	CapturedBytes int    `json:"captured_bytes,omitempty"`
	Error         string `json:"error,omitempty"` // why it is not runnable
}

// Summary is what is said of all of them.
type Summary struct {
	Frames    int            `json:"frames"`
	ByClass   map[string]int `json:"by_class"`
	ByReason  map[string]int `json:"by_reason"`
	ByVerdict map[string]int `json:"by_verdict"`
	SPIs      map[string]SPI `json:"spis"` // ESP, by DST/0xSPI
	AH        map[string]SPI `json:"ah"`   // the same of AH, whose SPIs are others
}

// SPI is what the program has counted of an SA.
type SPI struct {
	Packets uint64 `json:"packets"`
	LastSeq uint32 `json:"last_seq"` // of those that were captured
}

// Run writes a JSON line for each frame of the capture, then one with the
// summary, also when the capture ends in an error or ctx does. It needs what
// loading the program needs. The capture is read twice, from where it stands:
// what the program is to know comes first. What a file gains meanwhile is left
// out.
func Run(ctx context.Context, w io.Writer, capture io.ReadSeeker, o Options) error {
	start, err := capture.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	found, err := look(ctx, capture, o, mostEntries)
	if err != nil {
		return err
	}
	if _, err := capture.Seek(start, io.SeekStart); err != nil {
		return err
	}
	frames, err := pcap.NewReader(capture)
	if err != nil {
		return err
	}
	s, err := newSession(found, o)
	if err != nil {
		return err
	}
	defer s.close()
	out := json.NewEncoder(w)
	summary := Summary{ByClass: map[string]int{}, ByReason: map[string]int{}, ByVerdict: map[string]int{}}
	failed := s.runAll(ctx, frames, found.frames, func(line Line) error {
		summary.Frames++
		summary.ByClass[line.Class]++
		summary.ByReason[line.Reason]++
		summary.ByVerdict[line.Verdict]++
		return out.Encode(line)
	})
	if failed == nil {
		failed = found.damage
	}
	summary.SPIs, summary.AH, err = s.counted(o.SAs)
	return errors.Join(failed, err, out.Encode(struct {
		Summary Summary `json:"summary"`
	}{summary}))
}

// runAll runs so many frames.
func (s *session) runAll(ctx context.Context, frames *pcap.Reader, count int, emit func(Line) error) error {
	for range count {
		frame, err := frames.Next()
		if errors.Is(err, io.EOF) {
			err = errors.New("the capture has become shorter while it was read")
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		line, err := s.run(frame)
		if err == nil {
			err = emit(line)
		}
		if err != nil {
			return fmt.Errorf("frame %d: %w", frame.Number, err)
		}
	}
	return nil
}

// run gives one frame to the program.
func (s *session) run(f pcap.Frame) (Line, error) {
	line := Line{Frame: f.Number, Verdict: notRunnable, Reason: notRunnable, Class: notRunnable}
	in, captured, err := wire(f)
	if err != nil {
		line.Error = err.Error()
		return line, nil
	}
	if len(f.Data) < f.Length {
		line.CapturedBytes = len(f.Data)
	}
	to := inspect(in[:captured], s.nattPort)
	verdict, reason, err := s.sendTo(to, in)
	if err != nil {
		return line, err
	}
	line.Verdict, line.Reason, line.Class = verdict.String(), reason.String(), classes[reason]
	if s.locals[to.dst] {
		line.Class = to.class(reason)
	}
	return line, nil
}

// The classes that a datagram to the NAT-T port can have, behind classFirst if
// it is a first fragment.
const (
	classNATTShort = "short_4500"
	classIKENATT   = "ike-natt"
	classESPInUDP  = "espinudp"
	classFirst     = "frag1-"
)

// classes are the words that people have for kinds of frames, by the program's
// reasons: several say why, one says what.
var classes = [bpf.ReasonCount]string{
	bpf.ReasonUndecided:           "other",
	bpf.ReasonTruncated:           "other",
	bpf.ReasonSplit:               "other",
	bpf.ReasonNotIP:               "nonip",
	bpf.ReasonVLANDeep:            "nonip",
	bpf.ReasonIPMalformed:         "other",
	bpf.ReasonIPLength:            "other",
	bpf.ReasonExtensions:          "other",
	bpf.ReasonRouted:              "other",
	bpf.ReasonFragLater:           "frag-nonfirst",
	bpf.ReasonNotIPsec:            "other",
	bpf.ReasonUDPLength:           "other",
	bpf.ReasonUDPOther:            "other",
	bpf.ReasonFrom500:             "not_to_500",
	bpf.ReasonFromNATT:            "not_to_4500",
	bpf.ReasonFragFromIKE:         "not_to_4500",
	bpf.ReasonNATTShort:           classNATTShort,
	bpf.ReasonFragNATTShort:       classFirst + classNATTShort,
	bpf.ReasonESPShort:            "esp",
	bpf.ReasonAHShort:             "ah",
	bpf.ReasonGroupMAC:            "keepalive",
	bpf.ReasonOddKeepalive:        "keepalive",
	bpf.ReasonNotLocal:            "other",
	bpf.ReasonIKE500:              "ike500",
	bpf.ReasonIKELength:           "ike500",
	bpf.ReasonIKENATT:             classIKENATT,
	bpf.ReasonFragIKE500:          "frag1-ike500",
	bpf.ReasonFragIKENATT:         classFirst + classIKENATT,
	bpf.ReasonESPUDPKnown:         classESPInUDP,
	bpf.ReasonESPUDPMoved:         classESPInUDP,
	bpf.ReasonESPUDPUnknown:       classESPInUDP,
	bpf.ReasonFragESPUDPKnown:     classFirst + classESPInUDP,
	bpf.ReasonFragESPUDPMoved:     classFirst + classESPInUDP,
	bpf.ReasonFragESPUDPUnknown:   classFirst + classESPInUDP,
	bpf.ReasonESPKnown:            "esp",
	bpf.ReasonESPMoved:            "esp",
	bpf.ReasonESPUnknown:          "esp",
	bpf.ReasonAHKnown:             "ah",
	bpf.ReasonAHMoved:             "ah",
	bpf.ReasonAHUnknown:           "ah",
	bpf.ReasonKeepaliveAnswered:   "keepalive",
	bpf.ReasonKeepaliveAbsorbed:   "keepalive",
	bpf.ReasonKeepaliveNotNATted:  "keepalive",
	bpf.ReasonKeepaliveLimited:    "keepalive",
	bpf.ReasonKeepaliveOverBudget: "keepalive",
	bpf.ReasonKeepalivePassed:     "keepalive",
	bpf.ReasonStrangerDropped:     "keepalive",
	bpf.ReasonStrangerPassed:      "keepalive",
}
