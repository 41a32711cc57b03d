package policy

// Unique is how many SAs a pair of identities, ours and the one that the peer has
// proved, may have, in swanctl's words.
type Unique uint8

const (
	UniqueNo      Unique = iota // any number; INITIAL_CONTACT ends those before it
	UniqueNever                 // any number, and INITIAL_CONTACT says nothing
	UniqueKeep                  // the one that is up stays, and another is refused
	UniqueReplace               // another one ends those before it
)

var uniqueNames = map[string]Unique{"no": UniqueNo, "never": UniqueNever, "keep": UniqueKeep, "replace": UniqueReplace}

// ParseUnique reads a name of the configuration.
func ParseUnique(s string) (Unique, bool) {
	u, ok := uniqueNames[s]
	return u, ok
}
