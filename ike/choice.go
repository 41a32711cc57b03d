package ike

import (
	"errors"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

// Claim is how a peer presents himself: who he says he is, whom of us he wants, if he
// says so, and from where he calls.
type Claim = policy.Claim

// What a peer may be refused for, as Config.Choose tells it.
var (
	ErrNoIdentity    = errors.New("no connection is for this identity")
	ErrNoOwnIdentity = errors.New("no connection is for this identity and the one of ours that it asks for")
	ErrWrongAddress  = errors.New("its connection takes calls from elsewhere only")
	ErrNoSecret      = errors.New("the two share no secret")
)

// Choice is what a peer gets.
type Choice struct {
	// Connection is the name of his, or of the one that he would have had; "": none is
	// for him.
	Connection string
	// Others are for the same remote identity, in the order in which they are looked
	// at: for who calls from elsewhere, or asks for another of us.
	Others []string
	Secret Secret // nothing, if Refused is something
	// Refused is the reason, nil if there is none. What he offers and proves is not
	// looked at.
	Refused error
}

// Choose says what a peer gets, by the same code that decides when he calls. A claim
// without an address comes from where it is taken.
func (c *Config) Choose(claim Claim) (Choice, error) {
	set, err := c.policy()
	if err != nil {
		return Choice{}, err
	}
	conn, rule := set.Find(claim)
	if rule == policy.WrongAddress && !claim.From.IsValid() {
		claim.From = conn.Pins[0]
		conn, rule = set.Find(claim)
	}
	if conn == nil {
		return Choice{Refused: refusals[rule]}, nil
	}
	choice := Choice{Connection: conn.Name, Refused: refusals[rule]}
	for _, other := range set.For(conn.RemoteID) {
		if other != conn {
			choice.Others = append(choice.Others, other.Name)
		}
	}
	if rule != policy.Accepted {
		return choice, nil
	}
	shared, ok := set.Shared(conn.LocalID, claim.ID)
	if !ok {
		choice.Refused = ErrNoSecret
		return choice, nil
	}
	choice.Secret = Secret{ID: shared.Remote.String(), LocalID: shared.Local.String(), PSK: shared.PSK}
	return choice, nil
}

var refusals = map[policy.Rule]error{policy.NoIdentity: ErrNoIdentity, policy.NoOwnIdentity: ErrNoOwnIdentity, policy.WrongAddress: ErrWrongAddress}
