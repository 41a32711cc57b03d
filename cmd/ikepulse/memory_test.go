package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// keysOf reads the keys of an instance's only tunnel from the file of its
// records: where they stand there is what package sa's encoding says.
func (s *site) keysOf(instance, inSPI string) map[string][]byte {
	s.t.Helper()
	file, err := os.ReadFile(gateway.NamesOf(instance).Records)
	if err != nil {
		s.t.Fatal(err)
	}
	spi, err := strconv.ParseUint(inSPI, 16, 32)
	if err != nil {
		s.t.Fatal(err)
	}
	child := binary.LittleEndian.AppendUint32(nil, uint32(spi))
	at := bytes.Index(file, child)
	if at < 0 {
		s.t.Fatalf("no record has the SPI %s", inSPI)
	}
	const slot, choice = 1280, 6 * 2
	record := file[4096+(at-4096)/slot*slot+16:]
	keys := map[string][]byte{}
	read := func(from []byte, names ...string) {
		for _, name := range names {
			n := int(from[0])
			if n > 0 {
				keys[name] = bytes.Clone(from[1 : 1+n])
			}
			from = from[1+n:]
		}
	}
	read(record[4+4+2*8+2*19+choice:], "SK_d", "SK_ai", "SK_ar", "SK_ei", "SK_er", "SK_pi", "SK_pr")
	read(file[at+3*4+choice:], "in", "in integrity", "out", "out integrity")
	return keys
}

// hits are the places of keys, or of so many bytes of each, in what a process may
// write to.
func hits(t *testing.T, pid, length int, keys map[string][]byte) (found []string) {
	t.Helper()
	regions, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(regions)) {
		var from, to uint64
		fields := strings.Fields(line)
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
			t.Fatal(err)
		}
		if fields[1][1] != 'w' {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, int64(from)) // what cannot be read is of a device
		for name, key := range keys {
			for at := 0; ; at++ {
				i := bytes.Index(b[at:n], key[:min(length, len(key))])
				if i < 0 {
					break
				}
				at += i
				found = append(found, fmt.Sprintf("%s at %x of %s", name, from+uint64(at), strings.TrimSpace(line)))
			}
		}
		clear(b)
	}
	return found
}

// TestKeysLeaveMemory: an SA that has ended leaves no key in what its daemon
// holds, at either end: not on the heap, not on a stack, not in the records.
func TestKeysLeaveMemory(t *testing.T) {
	// A whole key has its salt, which no key schedule of the libraries has: what
	// is left of those cannot be wiped.
	t.Run("of ours", func(t *testing.T) { keysLeaveMemory(t, 100) })
	// What the allocator has freed is made unreadable, and it is made to free at
	// once: the libraries' key schedules are held by nobody either.
	t.Run("held", func(t *testing.T) {
		t.Setenv("GOMEMLIMIT", "1")
		t.Setenv("GODEBUG", "clobberfree=1")
		keysLeaveMemory(t, 16)
	})
}

func keysLeaveMemory(t *testing.T, length int) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(3)
	// What is looked at changes meanwhile: what AUTH needs goes with the next record.
	signal := func(sig os.Signal) {
		if err := errors.Join(gw.Signal(sig), client.Signal(sig)); err != nil {
			t.Fatal(err)
		}
	}
	sas := s.want(s.Gateway, 0, nil, "sas")
	signal(unix.SIGSTOP)
	keys := s.keysOf("default", strings.Fields(sas)[2])
	if len(keys) != 7 {
		t.Fatalf("%d keys in the record, want those of two AEADs and of the PRF", len(keys))
	}
	for _, d := range []*daemon{gw, client} {
		found := strings.Join(hits(t, d.PID(), length, keys), "\n")
		for name := range keys {
			if !strings.Contains(found, name+" at ") {
				t.Errorf("while the tunnel is up, %s is nowhere: this test finds nothing", name)
			}
		}
	}
	signal(unix.SIGCONT)
	s.want(s.Gateway, 0, []string{"deleting 1 IKE SA\n"}, "terminate", "anna@example.org")
	s.await("the tunnel is gone at both ends, and its keys", func() error {
		if at, there := s.do(s.Gateway, "sas"), s.do(s.Clients[0], "--instance", "anna", "sas"); at.out+there.out != "" {
			return errors.New(at.out + there.out)
		}
		if left := append(hits(t, gw.PID(), length, keys), hits(t, client.PID(), length, keys)...); len(left) > 0 {
			return fmt.Errorf("%d are left:\n%s", len(left), strings.Join(left, "\n"))
		}
		return nil
	})
	s.stop(gw, client)
	s.detached()
}
