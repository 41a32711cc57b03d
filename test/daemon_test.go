package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/lab"
)

// exitDegraded is the exit code of a daemon that is not running, or not well.
const exitDegraded = 3

// daemon is our own product, as a person uses it: its process, its command
// line, its log and its pins.
type daemon struct {
	t        *testing.T
	ns       *lab.Namespace
	dir      string
	instance string
	process  *lab.Process
	log      *lab.Transcript
}

// start runs our daemon in a namespace and waits until it answers.
func start(t *testing.T, ns *lab.Namespace, yaml string, secrets map[string]string) *daemon {
	t.Helper()
	d := &daemon{t: t, ns: ns, instance: fmt.Sprintf("t%d", instances.Add(1)), log: new(lab.Transcript)}
	secrets["ikepulse.yaml"] = yaml
	d.dir = folder(t, secrets)
	t.Cleanup(d.remove)
	d.run()
	return d
}

// run starts the daemon's process, once more where an earlier one was killed.
func (d *daemon) run() {
	d.t.Helper()
	path, err := product()
	if err != nil {
		d.t.Fatal(err)
	}
	d.process, err = d.ns.Start(lab.Command{Path: path, Output: d.log,
		// The heap is compared: what is no longer in use must not count.
		Env:  []string{"GOGC=2", "PATH="},
		Args: []string{"--instance", d.instance, "run", "--config", filepath.Join(d.dir, "ikepulse.yaml")}})
	if err != nil {
		d.t.Fatal(err)
	}
	await(d.t, "our daemon answers", func() bool {
		select {
		case <-d.process.Done():
			d.t.Fatalf("our daemon ended: %v\n%s", d.process.Wait(), d.log)
		default:
		}
		_, code := d.cli("status", "--json")
		return code == 0
	})
}

// stop ends the daemon, which says goodbye to its peers, if it still runs.
func (d *daemon) stop() {
	d.t.Helper()
	select {
	case <-d.process.Done():
	default:
		if err := d.process.Stop(limit); err != nil {
			d.t.Errorf("our daemon ended with %v\n%s", err, d.log)
		}
	}
}

// remove ends the daemon and takes its pins away.
func (d *daemon) remove() {
	d.stop()
	if d.t.Failed() {
		d.t.Logf("%s: our daemon:\n%s", d.ns.Name(), d.log)
	}
	if out, code := d.cli("detach", "--all"); code != 0 {
		d.t.Errorf("detach: code %d\n%s", code, out)
	}
	if strings.Contains(d.log.String(), "panic") {
		d.t.Errorf("our daemon panicked:\n%s", d.log)
	}
}

// cli runs one of our commands for this daemon.
func (d *daemon) cli(args ...string) (output string, code int) {
	d.t.Helper()
	path, err := product()
	if err != nil {
		d.t.Fatal(err)
	}
	out := new(lab.Transcript)
	p, err := d.ns.Start(lab.Command{Path: path, Output: out, Args: append([]string{"--instance", d.instance}, args...)})
	if err != nil {
		d.t.Fatal(err)
	}
	err = p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return out.String(), code
}

// must runs a command that has to succeed.
func (d *daemon) must(args ...string) string {
	d.t.Helper()
	out, code := d.cli(args...)
	if code != 0 {
		d.t.Fatalf("ikepulse %s: code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// read decodes what a noun tells.
func (d *daemon) read(v any, noun string) {
	d.t.Helper()
	d.decode(d.must(noun, "--json"), v)
}

func (d *daemon) decode(out string, v any) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(out), v); err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
}

// status is what the tests read of `status --json`.
type status struct {
	State    string   `json:"state"`
	Problems []string `json:"problems"`
	PID      int      `json:"pid"`
	Process  struct {
		HeapBytes  int `json:"heap_bytes"`
		Goroutines int `json:"goroutines"`
	} `json:"process"`
	Dataplane struct {
		Interface string            `json:"interface"`
		Counters  map[string]uint64 `json:"counters"`
	} `json:"dataplane"`
	IKE struct {
		Up         int `json:"up"`
		Childless  int `json:"childless"`
		Connecting int `json:"connecting"`
		Deleting   int `json:"deleting"`
		Handshakes struct {
			HalfOpen int `json:"half_open"`
		} `json:"handshakes"`
		Leases   map[string]int    `json:"leases"`
		Counters map[string]uint64 `json:"counters"`
	} `json:"ike"`
	Sockets []struct {
		Local      netip.AddrPort `json:"local"`
		Keepalives uint64         `json:"keepalives"`
	} `json:"sockets"`
	XDP *struct {
		SPIs        int    `json:"spis"`
		Events      uint64 `json:"events"`
		EventsLost  uint64 `json:"events_lost"`
		Attachments []struct {
			Interface string `json:"interface"`
			Mode      string `json:"mode"`
		} `json:"attachments"`
		Counters []struct {
			Name   string `json:"name"`
			Frames uint64 `json:"frames"`
		} `json:"counters"`
	} `json:"xdp"`
}

func (d *daemon) status() (st status) {
	d.t.Helper()
	out, code := d.cli("status", "--json")
	d.decode(out, &st)
	if (code == 0) != (st.State == "healthy") || code != 0 && code != exitDegraded {
		d.t.Fatalf("status: code %d\n%s", code, out)
	}
	return st
}

// settled is the status once garbage is out of the account: the heap is as of
// the last collection, so two must pass; of that and some more the least, since
// what a collection finds varies.
func (d *daemon) settled() status {
	d.t.Helper()
	was := d.status()
	var least status
	seen := 0
	await(d.t, "the heap is collected", func() bool {
		now := d.status()
		if now.Process.HeapBytes != was.Process.HeapBytes {
			if seen++; seen == 2 || seen > 2 && now.Process.HeapBytes < least.Process.HeapBytes {
				least = now
			}
		}
		was = now
		return seen == 5
	})
	return least
}

// xdp is one of the program's counters.
func (st status) xdp(name string) uint64 {
	for _, c := range st.XDP.Counters {
		if c.Name == name {
			return c.Frames
		}
	}
	panic("no counter " + name)
}

// keepalives is how many have come to the daemon's sockets.
func (st status) keepalives() (n uint64) {
	for _, s := range st.Sockets {
		n += s.Keepalives
	}
	return n
}

// peer is what the tests read of a line of `peers --json`.
type peer struct {
	Connection  string         `json:"connection"`
	Identity    string         `json:"identity"`
	State       string         `json:"state"`
	Role        string         `json:"role"`
	Local       netip.AddrPort `json:"local"`
	Remote      netip.AddrPort `json:"remote"`
	LocalNATted bool           `json:"local_natted"`
	PeerNATted  bool           `json:"peer_natted"`
	SPI         string         `json:"spi"`
	PeerSPI     string         `json:"peer_spi"`
	Suite       string         `json:"suite"`
	Received    uint64         `json:"keepalives"`
	Answered    uint64         `json:"keepalives_answered"`
	Child       *child         `json:"child"`
}

// child is what the tests read of a line of `sas --json`.
type child struct {
	Identity string         `json:"identity"`
	Remote   netip.AddrPort `json:"remote"`
	InSPI    string         `json:"spi_in"`
	OutSPI   string         `json:"spi_out"`
	Suite    string         `json:"suite"`
	LocalTS  []string       `json:"local_ts"`
	RemoteTS []string       `json:"remote_ts"`
	VIPs     []netip.Addr   `json:"virtual_ips"`
	Proof    string         `json:"proof"`
}

func (d *daemon) peers() (out []peer) {
	d.t.Helper()
	d.read(&out, "peers")
	return out
}

// peer returns the only one there is.
func (d *daemon) peer() peer {
	d.t.Helper()
	all := d.peers()
	if len(all) != 1 || all[0].Child == nil {
		d.t.Fatalf("want one peer with a tunnel, have %+v", all)
	}
	return all[0]
}

// maps opens the daemon's pins for reading.
func (d *daemon) maps() *maps.Set {
	d.t.Helper()
	set, err := maps.OpenPinned("/sys/fs/bpf/ikepulse/" + d.instance)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { set.Close() })
	return set
}

// tracked lists what the maps know: SPIs and tuples.
func tracked(t *testing.T, set *maps.Set) (spis []uint32, tuples []maps.Peer) {
	t.Helper()
	set.Hot.Each(func(_, spi, _, _ uint32) { spis = append(spis, spi) })
	var rich []uint32
	err := set.SAs.Each(func(s maps.SA) { rich = append(rich, s.SPI) })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(spis, rich) {
		t.Errorf("hot has the SPIs %x, sas has %x", spis, rich)
	}
	if err := set.Peers.Each(func(p maps.Peer) { tuples = append(tuples, p) }); err != nil {
		t.Fatal(err)
	}
	return spis, tuples
}

// logLine is one line of the daemon's log, in its order.
type logLine struct {
	Time   time.Time `json:"time"`
	Text   string    `json:"msg"`
	Peer   string    `json:"peer"`
	Remote string    `json:"remote"`
	Notify string    `json:"notify"`
	Error  string    `json:"error"`
	Try    int       `json:"try"`
}

// logged are the lines with a text so far.
func (d *daemon) logged(text string) (out []logLine) {
	for line := range strings.Lines(d.log.String()) {
		var l logLine
		if json.Unmarshal([]byte(line), &l) == nil && l.Text == text {
			out = append(out, l)
		}
	}
	return out
}

// cleared waits until nothing is left of any peer: in the daemon, in the data
// plane's routing, in the maps.
func (s *site) cleared(routes []string) {
	s.Helper()
	set := s.gw.maps()
	await(s.T, "no IKE SA is left", func() bool {
		st := s.gw.status()
		return st.IKE.Up+st.IKE.Childless+st.IKE.Connecting+st.IKE.Deleting+st.IKE.Handshakes.HalfOpen == 0
	})
	if peers := s.gw.peers(); len(peers) != 0 {
		s.Errorf("left: peers %+v", peers)
	}
	if spis, tuples := tracked(s.T, set); len(spis)+len(tuples) != 0 {
		s.Errorf("left in the maps: SPIs %x, tuples %+v", spis, tuples)
	}
	st := s.gw.status()
	for pool, n := range st.IKE.Leases {
		if n != 0 {
			s.Errorf("left: %d leases of %s", n, pool)
		}
	}
	for _, name := range []string{"panics", "key_exchange_panics", "reclaimed", "steps_failed", "removals_failed"} {
		if n := st.IKE.Counters[name]; n != 0 {
			s.Errorf("%s: %d", name, n)
		}
	}
	if now := routing(s.T, s.gw.ns); !slices.Equal(now, routes) {
		s.Errorf("routing is\n%s\nand was\n%s", strings.Join(now, "\n"), strings.Join(routes, "\n"))
	}
}
