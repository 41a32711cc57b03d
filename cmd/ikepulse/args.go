package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst puts a command line into the order that the library reads: global
// flags, the command, its flags, then everything else. A person may write them
// in any order, up to a "--".
func flagsFirst(app *cli.App, args []string) []string {
	var global, help, flags, rest []string
	var cmd *cli.Command
	for i := 1; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			rest = append(rest, args[i+1:]...)
			i = len(args)
		case !strings.HasPrefix(a, "-") || a == "-":
			if cmd == nil && len(rest) == 0 && app.Command(a) != nil {
				cmd = app.Command(a)
				continue
			}
			rest = append(rest, a)
		default:
			flag, isGlobal := flagOf(app, cmd, a)
			words := args[i:][:1]
			if takesValue(flag) && !strings.Contains(a, "=") && i+1 < len(args) {
				words = args[i:][:2]
				i++
			}
			if isGlobal && cmd == nil && lookupFlag([]cli.Flag{cli.HelpFlag}, a) != nil {
				help = words
			} else if isGlobal {
				global = append(global, words...)
			} else {
				flags = append(flags, words...)
			}
		}
	}
	if cmd != nil || len(rest) == 0 { // there is no help on a command that there is not
		global = append(global, help...)
	}
	out := append(args[:1:1], global...)
	if cmd != nil {
		out = append(out, cmd.Name)
	}
	if len(rest) > 0 {
		rest = append([]string{"--"}, rest...)
	}
	return slices.Concat(out, flags, rest)
}

// flagOf finds the flag that an argument names, nil if there is none. An
// unknown one belongs to the command, which then says so.
func flagOf(app *cli.App, cmd *cli.Command, arg string) (flag cli.Flag, global bool) {
	if cmd == nil {
		return lookupFlag(app.Flags, arg), true
	}
	if flag := lookupFlag(cmd.Flags, arg); flag != nil {
		return flag, false
	}
	flag = lookupFlag(app.Flags, arg)
	return flag, flag != nil
}

// lookupFlag finds the flag that an argument names.
func lookupFlag(flags []cli.Flag, arg string) cli.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// usageError explains a command line that could not be read.
func usageError(c *cli.Context, err error, _ bool) error {
	const unknown = "flag provided but not defined: "
	name, found := strings.CutPrefix(err.Error(), unknown)
	of, flags := c.App.Name, c.App.Flags
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != c.App.Name {
		of += " " + c.Command.Name
		flags = slices.Concat(c.Command.Flags, flags)
	}
	if !found {
		return usage("%s", misread(flags, err.Error()))
	}
	hint := "; see " + of + " --help"
	if near := nearest(strings.TrimLeft(name, "-"), flagNames(flags)); near != "" {
		hint = "; did you mean --" + near + "?"
	}
	return usage("%s has no flag -%s%s", of, name, hint)
}

func flagNames(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	return names
}

func suggestCommand(app *cli.App, name string) string {
	var names []string
	for _, c := range app.Commands {
		names = append(names, c.Name)
	}
	if near := nearest(name, names); near != "" {
		return "; did you mean " + near + "?"
	}
	return "; see " + app.Name + " --help"
}

// nearest returns the name that a mistyped one was most likely meant to be, ""
// when none is near.
func nearest(typed string, names []string) string {
	best, least := "", 1+(len(typed)+1)/3
	for _, n := range names {
		d := distance(typed, n)
		if d < least || d == least && best != "" && len(n) == len(typed) && len(best) != len(typed) {
			best, least = n, d
		}
	}
	return best
}

// distance is how many letters must be put in, left out, changed or swapped
// with their neighbour.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			if i == 0 || j == 0 {
				rows[i][j] = i + j
				continue
			}
			change := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			d := min(change, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
