package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
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
