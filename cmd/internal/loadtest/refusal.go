package loadtest

import (
	"errors"
	"strings"

	"github.com/ikepulse/ikepulse/ike"
)

// What a handshake may fail with beside what the gateway says.
const (
	noAnswer  = "no answer"
	notProven = "the gateway's identity or secret is another"
)

// reason is why a handshake has failed, in as few words as there are kinds.
func reason(err error) string {
	text := err.Error()
	what, notify, said := strings.Cut(text, ": the peer says ")
	switch {
	case said && what == "no child SA":
		return "no child SA: " + notify
	case said:
		return notify
	case strings.HasPrefix(text, "authentication failed"):
		return notProven
	case text == "handshake timeout":
		return noAnswer
	}
	return text
}

// busy reports whether a handshake has failed for want of time here, before
// anything of it has left.
func busy(err error) bool { return errors.Is(err, ike.ErrBusy) }
