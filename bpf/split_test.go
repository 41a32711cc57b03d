package bpf

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

// xdpMD is the kernel's struct xdp_md.
type xdpMD struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// firstBuffer returns how much of a frame the kernel's test run has in the
// first buffer.
func (r *rig) firstBuffer(in []byte) int {
	r.Helper()
	md := xdpMD{DataEnd: uint32(len(in))}
	if _, err := r.IkepulseXdp.Run(&ebpf.RunOptions{Data: in, Context: md, ContextOut: &md}); err != nil {
		r.Fatal(err)
	}
	return int(md.DataEnd - md.Data)
}

func larger(size int) func(*frame) {
	return func(f *frame) { f.payload = append(f.payload, make([]byte, size)...) }
}

// Jumbo frames are in several buffers, of which the last may be short.
func TestJumboFrames(t *testing.T) {
	r := registered(t)
	if first := r.firstBuffer(espInUDP(knownSPI, 1).alter(larger(9000)).build()); first > 4096 {
		t.Fatalf("%d bytes in the first buffer: these frames are not split", first)
	}
	for _, sender := range senders() {
		for _, size := range []int{3000, 9000, 40000} {
			f := sender.frame(knownSPI, 1).alter(larger(size))
			r.expect(f, sender.known, r.seen(knownSPI))
			f.padTo = len(f.build()) + 100
			r.expect(f, sender.known, r.seen(knownSPI))
		}
	}
	r.expect(ike(500).alter(larger(9000)), ReasonIKE500)
	f := keepalive()
	f.padTo = 9000
	r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
}

// What is missing in the last of several buffers is missing, too.
func TestJumboFramesCut(t *testing.T) {
	r := registered(t)
	for _, change := range []func(*frame){func(*frame) {}, over6} {
		f := espInUDP(knownSPI, 1).alter(larger(9000), change)
		f.cutTo = len(f.build()) - 1
		r.expect(f, ReasonIPLength)
		f.cutTo = 0
		f.totalLie = 1
		r.expect(f, ReasonIPLength)
	}
}

// Headers are read as far as the first buffer goes, and not a byte further:
// the chain is as long as it takes for each of them to straddle its end.
func TestHeadersBehindTheFirstBuffer(t *testing.T) {
	r := registered(t)
	at := func(sender sender, padding int) frame {
		f := sender.frame(knownSPI, 1).alter(larger(9000))
		f.extensions = append([]extension{options(protocolHopByHop, 2048), options(protocolDestination, padding)}, f.extensions...)
		return f
	}
	for _, sender := range senders()[6:] {
		first := r.firstBuffer(at(sender, 8).build())
		edge := (first-at(sender, 8).headersEnd())/8*8 + 8
		split := 0
		for padding := edge - 24; padding <= edge+24; padding += 8 {
			f := at(sender, padding)
			if f.headersEnd() > first {
				r.expect(f, ReasonSplit)
				split++
			} else {
				r.expect(f, sender.known, r.seen(knownSPI))
			}
			if t.Failed() {
				t.Fatalf("%s: headers end at %d, the first buffer at %d", sender.name, f.headersEnd(), first)
			}
		}
		if split != 3 {
			t.Errorf("%s: %d split, want the last 3", sender.name, split)
		}
	}
}

// read returns where what the program reads of a frame ends.
func (f frame) read() int {
	switch {
	case f.protocol != protocolUDP:
		return f.headersEnd()
	case f.dst.Port() != gateway.Port():
		return f.headersEnd() - 8 // UDP's own header
	case len(f.payload) == 1:
		return f.headersEnd() - 7
	case f.payload[0] == 0: // the non-ESP marker
		return f.headersEnd() - 4
	}
	return f.headersEnd()
}

// splitAt runs a frame with so much of it in the first buffer; a kernel whose
// test run cannot refuses.
func (r *rig) splitAt(in []byte, first int) (Verdict, []byte, error) {
	md := xdpMD{DataEnd: uint32(first)}
	opts := ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+64), Context: md, ContextOut: &md}
	verdict, err := r.IkepulseXdp.Run(&opts)
	return Verdict(verdict), opts.DataOut, err
}

// Wherever a driver splits a frame: it passes as split, nothing is stamped, and
// no byte is changed, until all that is read is in the first buffer.
func TestSplitAnywhere(t *testing.T) {
	r := registered(t)
	if _, _, err := r.splitAt(espInUDP(knownSPI, 1).build(), 20); err != nil {
		t.Logf("this kernel splits no small frames: %v", err)
		return
	}
	for name, f := range wrapped() {
		// An emulated CPU takes half a minute for all of them.
		if testing.Short() && !strings.HasSuffix(name, ", IPv4") && !strings.HasSuffix(name, ", IPv6") {
			continue
		}
		in := f.build()
		for first := 14; first < len(in); first++ {
			before := r.state()
			verdict, out, err := r.splitAt(in, first)
			if err != nil {
				t.Fatal(err)
			}
			after := r.state()
			if split := after.Counters["split"] - before.Counters["split"]; (split == 1) != (first < f.read()) {
				t.Fatalf("%s, %d of %d bytes in the first buffer, %d are read: split counted %d times", name, first, len(in), f.read(), split)
			}
			if first >= f.read() {
				continue
			}
			before.Counters["split"]++
			if verdict != VerdictPass || !bytes.Equal(in, out) || !reflect.DeepEqual(before, after) {
				t.Fatalf("%s, %d bytes in the first buffer: %v\n%s", name, first, verdict, cmp.Diff(before, after))
			}
		}
	}
}
