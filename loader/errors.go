package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotLoaded says that the instance has no pins.
	ErrNotLoaded = errors.New("not loaded")
	// ErrNoBPFFS says that there is nowhere to pin.
	ErrNoBPFFS = errors.New("no bpffs: pins would not outlive this process")
	// ErrNotAttached says that the program is not on the interface.
	ErrNotAttached = errors.New("not attached")
	// ErrNoAnswer says why keepalives are not answered beside another daemon.
	ErrNoAnswer = errors.New("refused beside another daemon: only it knows which of its peers are behind a NAT, and an answer to any other would be wrong; absorb or pass")
)

// MismatchError says that what is pinned is not what was asked for, or not
// what this version can read. Nothing was changed.
type MismatchError struct {
	Dir      string
	Differs  []string // a sentence each
	Attached []string // interfaces that the pinned program serves
	Whole    bool     // what is pinned cannot be opened: it goes as a whole, or stays
}

func (e *MismatchError) Error() string {
	s := fmt.Sprintf("%s is loaded otherwise: %s", e.Dir, strings.Join(e.Differs, "; "))
	attached := strings.Join(e.Attached, ", ")
	switch {
	case e.Whole && attached != "":
		return s + fmt.Sprintf("; it is attached to %s, take it off as a whole first (ikepulse detach --all)", attached)
	case attached != "":
		return s + fmt.Sprintf("; detach it from %s first", attached)
	}
	return s + "; remove it first (ikepulse detach --all)"
}

// NamespaceError says that the pins serve another network namespace. The
// cookies are the kernel's numbers of the two.
type NamespaceError struct {
	Dir          string
	Theirs, Ours uint64
}

func (e *NamespaceError) Error() string {
	return fmt.Sprintf("%s serves another network namespace (cookie %d, this one has %d): run in that one, or take another instance name; if that namespace is gone: rm -r %s", e.Dir, e.Theirs, e.Ours, e.Dir)
}

// ForeignError says that an interface has somebody else's XDP program, which
// stays.
type ForeignError struct {
	Interface string
	Name      string
	ID        uint32
}

func (e *ForeignError) Error() string {
	if e.Name == dispatcher {
		return fmt.Sprintf("%s has libxdp's dispatcher (%s, id %d), which calls other programs; it stays. ikepulse is no part of it: xdp-loader status %s names what would go, xdp-loader unload %s --all takes it off, or give ikepulse another interface", e.Interface, e.Name, e.ID, e.Interface, e.Interface)
	}
	return fmt.Sprintf("%s has another XDP program: %s, id %d (see: bpftool prog show id %d); it stays", e.Interface, e.Name, e.ID, e.ID)
}

// dispatcher is the name of the program that xdp-loader and other users of
// libxdp put on an interface, to call several in turn.
const dispatcher = "xdp_dispatcher"

const lockdownFile = "/sys/kernel/security/lockdown"

// Explain is for whoever loads the program without an instance.
func Explain(err error) error { return explain(err) }

// explain adds what an error of the BPF system call most likely means here.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if why := meaning(err); why != "" {
		return fmt.Errorf("%w (%s)", unhinted{err}, why)
	}
	return err
}

// unhinted is an error without the library's advice about a limit that these
// kernels no longer apply to BPF.
type unhinted struct{ error }

func (e unhinted) Error() string {
	return strings.ReplaceAll(e.error.Error(), " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
}

func (e unhinted) Unwrap() error { return e.error }

func meaning(err error) string {
	var refused *ebpf.VerifierError
	denied := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	missing := missingCapabilities()
	switch {
	case denied && inUserNamespace():
		return "this process is root of a user namespace alone, which is too little for BPF: run it as the host's root"
	case denied && len(missing) > 0:
		return "this process lacks " + strings.Join(missing, " and ")
	case errors.As(err, &refused) && !errors.Is(err, unix.EPERM): // the verifier says EACCES, too
		return "this kernel's verifier refuses the program"
	case errors.Is(err, unix.ENOMEM):
		return "no memory for maps of this capacity; see the limit of this process's cgroup"
	case errors.Is(err, unix.E2BIG):
		return "larger than this kernel allows"
	case !denied:
		return ""
	}
	if state, err := os.ReadFile(lockdownFile); err == nil && !strings.Contains(string(state), "[none]") {
		return "kernel lockdown: " + strings.TrimSpace(string(state))
	}
	return "refused by the kernel's security policy"
}

// inUserNamespace tells whether this process's rights are of another user
// namespace than the first, and so end before BPF does.
func inUserNamespace() bool {
	const first = 0xEFFFFFFD // PROC_USER_INIT_INO
	var ns unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &ns) == nil && ns.Ino != first
}

// missingCapabilities names what loading and attaching needs and this thread
// does not have. CAP_SYS_ADMIN stands for the first two on its own.
func missingCapabilities() (missing []string) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil
	}
	has := func(capability int) bool {
		return data[capability/32].Effective&(1<<(capability%32)) != 0
	}
	admin := has(unix.CAP_SYS_ADMIN)
	if !admin && !has(unix.CAP_BPF) {
		missing = append(missing, "CAP_BPF")
	}
	if !admin && !has(unix.CAP_PERFMON) {
		missing = append(missing, "CAP_PERFMON")
	}
	if !has(unix.CAP_NET_ADMIN) {
		missing = append(missing, "CAP_NET_ADMIN")
	}
	return missing
}
