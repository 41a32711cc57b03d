package policy

import "slices"

// Rule is what decides that a peer is refused.
type Rule uint8

const (
	Accepted Rule = iota

	// Of a handshake.
	NoSuite // nothing in common in IKE_SA_INIT; or what was agreed there, before he said who he is, is not the connection's
	BadKE   // a public value that is none

	// Of an identity.
	NoProof       // no identity, or no AUTH by a pre-shared key
	NoIdentity    // no connection is for the peer's identity
	NoOwnIdentity // some are, but none as the one of us that he asked for
	WrongAddress  // the connection takes his calls from elsewhere only
	NoSecret      // the two share none
	WrongSecret

	// Of an association, after his proof.
	NotUnique  // he has one already, and the connection keeps that
	TooManySAs // he has his share
	NoPlace    // the gateway holds no more tunnels

	// Of a Child SA: the association stands without.
	NoESPSuite
	NoSelectors     // nothing in common
	NoAddress       // no pool has one left of a family that he asked for
	TooManyLeases   // he has his share
	NotAsked        // the connection gives addresses, and he asked for none
	NoEncapsulation // he does not put ESP into UDP, and we do nothing else
)

// OfAssociation reports whether a rule refuses a peer who has proved who he is.
func (r Rule) OfAssociation() bool { return r >= NotUnique && r <= NoPlace }

// ruleNames are also the ends of the counters' names.
var ruleNames = [...]string{"accepted", "suite", "bad_ke", "no_proof", "identity", "own_identity", "address", "no_secret", "secret",
	"not_unique", "share_sas", "no_place", "esp_suite", "selectors", "no_address", "share_leases", "not_asked", "no_encapsulation"}

// Rules is how many there are beside Accepted.
const Rules = int(NoEncapsulation)

func (r Rule) String() string { return ruleNames[r] }

// ParseRule is the rule of that name; Accepted if there is none.
func ParseRule(name string) Rule { return Rule(max(slices.Index(ruleNames[:], name), 0)) }
