package sa

import (
	"fmt"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
)

// Command is something that an SA is told, beside packets and time. The set is
// closed.
type Command interface{ command() }

// Initiate starts the handshake of an SA made by NewInitiator.
type Initiate struct{}

// Agreed answers an Agree step. What it holds is the receiver's, who wipes it.
type Agreed struct {
	Private *suite.Private
	Secret  []byte `json:"-"`
	Err     error  // the peer's value was refused
	// Alone tells an initiator that this handshake is all that there is between the
	// two, so that INITIAL_CONTACT is true.
	Alone bool
}

// Format keeps the secret out of logs, whatever the verb.
func (a Agreed) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "[agreed: %v]", a.Err) }

// Wipe overwrites what an SA that is gone does not take any more.
func (a Agreed) Wipe() {
	clear(a.Secret)
	if a.Private != nil {
		a.Private.Wipe()
	}
}

// Admitted answers an Admit step. Where the rule is not Accepted the peer is refused,
// or, if the rule is of a Child SA, gets none.
type Admitted struct {
	Rule    policy.Rule
	Addrs   []netip.Addr // leased, one for each that was wanted and can be had
	DNS     []netip.Addr
	Domains []policy.Domain
}

// Failed tells that a step was not carried out, nor those behind it.
type Failed struct {
	Step Step
	Err  error
}

// Probe sends an empty INFORMATIONAL, unless a request is outstanding already.
type Probe struct{}

// Terminate deletes the SA with a DELETE exchange.
type Terminate struct{}

// Dead closes the SA without a word: its peer has been judged dead.
type Dead struct{}

// Replace closes the SA without a word: its identity has connected anew.
type Replace struct{}

// Displace closes the SA because another one takes its place, and tells the peer so,
// once: he may be gone.
type Displace struct{}

// Rebound tells that an authenticated ESP packet came from another endpoint.
type Rebound struct{ Path Path }

func (Initiate) command()  {}
func (Agreed) command()    {}
func (Admitted) command()  {}
func (Failed) command()    {}
func (Probe) command()     {}
func (Terminate) command() {}
func (Dead) command()      {}
func (Replace) command()   {}
func (Displace) command()  {}
func (Rebound) command()   {}
