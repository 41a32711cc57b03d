package policy

import (
	"encoding/json"
	"fmt"
)

// Secret is a pre-shared key and the two who share it.
type Secret struct {
	Local  ID      // ours; zero: any
	Remote Pattern // the peer's
	PSK    []byte
}

// Format keeps the key out of logs, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) {
	if s.Local == (ID{}) {
		_, _ = fmt.Fprintf(f, "[secret of %v]", s.Remote)
		return
	}
	_, _ = fmt.Fprintf(f, "[secret of %v and %v]", s.Local, s.Remote)
}

// MarshalJSON does for a log in JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(s)) }

// Format keeps the keys out of logs, whatever the verb.
func (s Set) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "[policy of %d connections]", len(s.Connections))
}

// pair is who shares a secret; without local: whoever of us.
type pair struct {
	local  ID
	remote Pattern
}

// indexSecrets finds them by the pair. What is ours alone is shared with anybody
// who has none of his own: so a secret may stand under either identity.
func indexSecrets(secrets []Secret) map[pair]Secret {
	index := map[pair]Secret{}
	for _, s := range secrets {
		index[pair{s.Local, s.Remote}] = s
	}
	for _, s := range secrets {
		own, exact := s.Remote.Exact()
		ours := pair{own, Anybody}
		if _, better := index[ours]; exact && s.Local == (ID{}) && !better {
			index[ours] = s
		}
	}
	return index
}

// Secret is the key that two identities share, by the rule of the package. A peer
// who is not known yet is the zero ID.
func (s *Set) Secret(own, peer ID) (psk []byte, ok bool) {
	secret, ok := s.Shared(own, peer)
	return secret.PSK, ok
}

// Shared is Secret with the two whom the configuration names for it.
func (s *Set) Shared(own, peer ID) (secret Secret, ok bool) {
	for remote := range Only(peer).Wider {
		for _, local := range []ID{own, {}} {
			if secret, ok = s.secrets[pair{local, remote}]; ok {
				return secret, true
			}
		}
	}
	return Secret{}, false
}
