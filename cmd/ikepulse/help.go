package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// groups are the headings of the help, in its order.
var groups = []string{"Run", "XDP", "Look", "Act", "Try"}

// appHelp is the first screen: every command in its group.
func appHelp(app *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nUsage: %s [--instance NAME] COMMAND ...\n", app.Name, app.Usage, app.Name)
	for _, group := range append(groups, "") {
		heading := "\n"
		if group != "" {
			heading += group + "\n"
		}
		for _, c := range app.Commands {
			if c.Category != group {
				continue
			}
			fmt.Fprintf(&b, "%s  %-10s %s\n", heading, c.Name, c.Usage)
			heading = ""
		}
	}
	b.WriteString("\nEverywhere\n")
	for _, f := range app.Flags {
		b.WriteString("  " + flagLine(f) + "\n")
	}
	fmt.Fprintf(&b, "\nExit codes: 0 well, 1 error, 2 usage, 3 degraded or not running. More: %s COMMAND --help\n", app.Name)
	return b.String()
}

// commandHelp is a command's own page. UsageText is what stands behind its
// name, Description says more, with an example.
func commandHelp(app *cli.App, c *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n\nUsage: %s\n", app.Name, c.Name, c.Usage,
		strings.TrimSpace(app.Name+" "+c.Name+" "+c.UsageText))
	if c.Description != "" {
		b.WriteString("\n" + c.Description + "\n")
	}
	for i, f := range c.VisibleFlags() {
		if i == 0 {
			b.WriteString("\n")
		}
		b.WriteString("  " + flagLine(f) + "\n")
	}
	return b.String()
}

// flagLine describes a flag; the word in backquotes in its usage stands for
// its value.
func flagLine(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return f.Names()[0]
	}
	name, usage := "--"+f.Names()[0], d.GetUsage()
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		word, after, _ := strings.Cut(rest, "`")
		name, usage = name+" "+word, before+word+after
	}
	return fmt.Sprintf("%-26s %s", name, usage)
}
