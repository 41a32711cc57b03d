// Package loader brings program and maps into the kernel and to interfaces,
// and takes them away again, all or nothing. What it makes is pinned, so that
// it outlives the process: an [Instance] is the pins of one directory, and any
// process may open them.
//
// One instance serves one network namespace. Every function works in that of
// the calling thread: a caller that entered another one stays locked to its
// thread.
package loader

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
)

// DefaultInstance is the instance that is meant when none is named.
const DefaultInstance = "default"

// The bpffs of the host, and the directory of our instances in it.
const (
	bpffs = "/sys/fs/bpf"
	base  = bpffs + "/ikepulse"
)

// Options say what to load. Where something is loaded already, a zero value of
// Capacity, Keepalive, AnswerInterval, AnswerBudget and NATTPort means "as it
// is", else the default.
type Options struct {
	Instance       string        // "": default
	PinDir         string        // "": /sys/fs/bpf/ikepulse/<instance>
	NoPin          bool          // nothing outlives the process
	Capacity       int           // tunnels; 0: 65536
	Keepalive      string        // answer, absorb or pass; "": answer
	AnswerInterval time.Duration // per tuple; 0: 10 s
	AnswerBudget   int           // answers a second over all tuples; 0: twice what Capacity tunnels can have
	PassEvery      int           // every so manieth keepalive of a tuple goes to the stack, for its conntrack; 0: none
	StrangerPass   bool          // keepalives from unknown tuples go to the stack
	NATTPort       uint16        // 0: 4500
	Account        bool          // keep packets and last_seq, at a second cache line a packet
	Follow         bool          // the SPIs are another daemon's: found by a hash, keepalives never answered
	KeepTags       bool          // Attach switches off what hides VLAN tags, if an answer would leave without
	Own            bool          // whoever asks owns the instance: what is attached changes, too, without a gap

	alter func(*ebpf.CollectionSpec) // nil; a test's way to a program that the kernel refuses
}

// What an Options field is when it is zero and nothing is loaded.
const (
	DefaultCapacity       = 65536
	DefaultKeepalive      = "answer"
	DefaultAnswerInterval = 10 * time.Second
	DefaultNATTPort       = 4500
)

// Events are for one reader, who has better things to do: an SPI that drifts is
// told again after driftInterval, and strangers not more often than this.
const (
	driftInterval    = 5 * time.Second
	strangersASecond = 50
)

// Names of instances become names in bpffs, which takes no dots, and of
// sockets and tables. A leading underscore is for what is under construction.
var instanceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`)

// Dir returns where an instance is pinned unless told otherwise.
func Dir(instance string) (string, error) {
	if instance == "" {
		instance = DefaultInstance
	}
	if !instanceName.MatchString(instance) {
		return "", fmt.Errorf("instance name %q: want 1 to 32 letters, digits, - or _, beginning with a letter or a digit", instance)
	}
	return filepath.Join(base, instance), nil
}

func (o Options) dir() (string, error) {
	dir, err := Dir(o.Instance)
	if err != nil || o.PinDir == "" {
		return dir, err
	}
	return checkDir(o.PinDir)
}

// checkDir refuses what bpffs would refuse with "operation not permitted".
func checkDir(dir string) (string, error) {
	name := filepath.Base(dir)
	if !filepath.IsAbs(dir) || strings.ContainsAny(name, "./") || strings.HasPrefix(name, "_") {
		return "", fmt.Errorf("pin directory %q: want an absolute path whose last part has no dot and does not begin with _", dir)
	}
	return filepath.Clean(dir), nil
}

func (o Options) check() error {
	if o.Capacity < 0 || o.Capacity > maps.MaxCapacity {
		return fmt.Errorf("capacity %d: want 1 to %d tunnels", o.Capacity, maps.MaxCapacity)
	}
	if _, ok := maps.KeepaliveMode(o.Keepalive); !ok && o.Keepalive != "" {
		return fmt.Errorf("keepalive %q: want answer, absorb or pass", o.Keepalive)
	}
	if o.Follow && o.Keepalive == DefaultKeepalive {
		return fmt.Errorf("keepalive answer: %w", ErrNoAnswer)
	}
	if o.AnswerInterval < 0 || o.AnswerInterval > 24*time.Hour {
		return fmt.Errorf("answer interval %v: want up to a day", o.AnswerInterval)
	}
	if o.AnswerBudget < 0 {
		return fmt.Errorf("answer budget %d: want answers a second", o.AnswerBudget)
	}
	if o.PassEvery < 0 || o.PassEvery > math.MaxInt32 {
		return fmt.Errorf("pass every %d: want a number of keepalives, or 0 for none", o.PassEvery)
	}
	return nil
}

// Instance is one set of maps with its program and the interfaces that it is
// attached to. Every method may be called from any goroutine of a thread in
// its namespace; calls of several processes wait for each other.
type Instance struct {
	dir      string // "": not pinned
	set      *maps.Set
	program  *ebpf.Program
	hot      ebpf.MapID // tells its maps from those of a successor at the same place
	keepTags bool
	older    error
	tables   error // why there are none, as far as this process knows

	mu    sync.Mutex
	links map[string]link.Link // by interface; only when not pinned
}

// Maps returns the views of the instance's maps, which end with Close.
func (i *Instance) Maps() *maps.Set { return i.set }

// Older is nil, or why a program of another version serves the instance still.
func (i *Instance) Older() error { return i.older }

// Tables returns why the instance has no tables for cat, if this process tried
// to make them; nil if it has them, or was not the one to make them.
func (i *Instance) Tables() error { return i.tables }

// Dir returns where the instance is pinned, "" if it is not.
func (i *Instance) Dir() string { return i.dir }

// Close gives up this process's hold. What is pinned goes on; without pins the
// program leaves its interfaces.
func (i *Instance) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	errs := []error{i.set.Close(), i.program.Close()}
	for _, l := range i.links {
		errs = append(errs, l.Close())
	}
	i.links = nil
	return errors.Join(errs...)
}

// objects are what loading yields.
type objects struct {
	maps.Handles
	XDP *ebpf.Program `ebpf:"ikepulse_xdp"`
}

func (o *objects) Close() error {
	return errors.Join(o.XDP.Close(), o.Handles.Close())
}

// instance makes an Instance of objects, which it owns from then on; on an
// error they are closed.
func (o *objects) instance(dir string) (*Instance, error) {
	hot, err := mapID(o.Hot)
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	set, err := maps.Open(o.Handles)
	if err != nil {
		return nil, errors.Join(explain(err), o.Close())
	}
	return &Instance{dir: dir, set: set, program: o.XDP, hot: hot, links: make(map[string]link.Link)}, nil
}

// programPin is where the program is pinned.
func programPin(dir string) string { return filepath.Join(dir, bpf.ProgXDP) }
