package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/maps"
)

// checkValues refuses what a flag of the command cannot be, and names of
// interfaces that are none, before anything else is looked at.
func checkValues(c *cli.Context) error {
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if !c.IsSet(name) {
			continue
		}
		if wants := unusable(c, name); wants != "" {
			return usage("--%s %v: want %s", name, c.Value(name), wants)
		}
	}
	if c.Command.Category == "XDP" && slices.Contains(c.Args().Slice(), "") {
		return usage("%s: a name is empty", c.Command.Name)
	}
	return nil
}

// unusable says what a flag wants that has something else, "" if it is well.
func unusable(c *cli.Context, name string) string {
	within := func(least, most int, of string) string {
		if n := c.Int(name); n >= least && n <= most {
			return ""
		}
		return fmt.Sprintf("%d to %d %s", least, most, of)
	}
	switch name {
	case "capacity":
		return within(1, maps.MaxCapacity, "tunnels")
	case "pass-every":
		return within(0, math.MaxInt32, "keepalives, of which 0 is none")
	case "limit":
		return within(0, math.MaxInt32, "lines, of which 0 is all")
	case "every":
		if c.Duration(name) < 0 {
			return "a time, or 0 for changes alone"
		}
	case "answer-interval":
		const least, most = config.MinAnswerInterval, config.MaxAnswerInterval
		if d := c.Duration(name); d < least || d > most {
			return setting(least) + " to " + setting(most)
		}
	case "keepalive":
		word := c.String(name)
		_, known := maps.KeepaliveMode(word)
		switch {
		case known:
		case c.Command.Name == "follow":
			return "absorb or pass"
		default:
			return "answer, absorb or pass"
		}
	}
	return ""
}

// misread explains a value that could not be read, as the library says it:
// invalid value "10" for flag -rate: parse error.
func misread(flags []cli.Flag, said string) string {
	if name, found := strings.CutPrefix(said, "flag needs an argument: -"); found {
		return fmt.Sprintf("--%s: a value is missing", strings.TrimLeft(name, "-"))
	}
	said = strings.Replace(said, "invalid boolean value", "invalid value", 1)
	said = strings.Replace(said, `" for -`, `" for flag -`, 1)
	rest, found := strings.CutPrefix(said, `invalid value "`)
	value, rest, ok := strings.Cut(rest, `" for flag -`)
	name, _, _ := strings.Cut(rest, ":")
	if !found || !ok {
		return said
	}
	wants := "something else"
	switch lookupFlag(flags, name).(type) {
	case *cli.DurationFlag:
		wants = "a time with its unit, as 500ms, 10s or 5m"
		if value != "" && strings.Trim(value, "0123456789") == "" {
			wants = "a unit behind it, as in " + value + "s"
		}
	case *cli.IntFlag:
		wants = "a whole number"
	case *cli.BoolFlag:
		wants = "no value"
	}
	return fmt.Sprintf("--%s %s: want %s", name, plain(value), wants)
}
