package gateway

import (
	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike"
)

// Choice is what a peer gets, in the words of the configuration.
type Choice struct {
	Connection *config.Connection   // his, or what he would have had; nil: none is for him
	Others     []*config.Connection // for the same remote identity
	Secret     *config.Secret       // nil, if Refused is something
	Refused    error                // one of ike's, nil if there is no reason
}

// Choose says what a peer gets of a configuration, whose secrets may be without
// their values.
func Choose(c *config.Config, claim ike.Claim) (Choice, error) {
	core := ikeConfig(c)
	choice, err := core.Choose(claim)
	if err != nil {
		return Choice{}, err
	}
	named := map[string]*config.Connection{}
	for i := range c.Connections {
		named[c.Connections[i].Name] = &c.Connections[i]
	}
	out := Choice{Connection: named[choice.Connection], Refused: choice.Refused}
	for _, name := range choice.Others {
		out.Others = append(out.Others, named[name])
	}
	for i := range core.Secrets {
		if s := &core.Secrets[i]; s.ID == choice.Secret.ID && s.LocalID == choice.Secret.LocalID {
			out.Secret = &c.Secrets[i]
		}
	}
	return out, nil
}
