package bpf

import "fmt"

// Reason is why a frame left the program: the index of its counter.
type Reason uint32

// Verdict is what the program returned for a frame.
type Verdict uint32

// The XDP verdicts in use; the values are the kernel's.
const (
	VerdictAborted Verdict = iota
	VerdictDrop
	VerdictPass
	VerdictTX
)

// String returns the name in lower case, as in "pass".
func (v Verdict) String() string {
	switch v {
	case VerdictAborted:
		return "aborted"
	case VerdictDrop:
		return "drop"
	case VerdictPass:
		return "pass"
	case VerdictTX:
		return "tx"
	}
	return fmt.Sprintf("verdict(%d)", uint32(v))
}
