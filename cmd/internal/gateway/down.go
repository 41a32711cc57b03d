package gateway

import (
	"fmt"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

// downProblems names the connections that are to be up and are not.
func downProblems(st *ike.Status) (all []string) {
	for _, d := range st.Down {
		next := "it is being called"
		if d.CallInMS != nil {
			next = "called again in " + rounded(*d.CallInMS)
		}
		all = append(all, fmt.Sprintf("%s is down for %s: %s; %s", d.Connection, rounded(d.DownMS), d.Why, next))
	}
	if more := st.DownTotal - len(st.Down); more > 0 {
		all = append(all, fmt.Sprintf("%d more connections that are to be up are down", more))
	}
	return all
}

// rounded is a time as a person says it: in seconds, minutes or hours.
func rounded(ms int64) string {
	switch d := time.Duration(ms) * time.Millisecond; {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	default:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
}
