package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/demo"
	"github.com/ikepulse/ikepulse/test/lab"
)

// demoCommand plays the demo in namespaces of its own: whatever ends it, the
// kernel takes them away with all that is in them.
func demoCommand(e env) *cli.Command {
	return &cli.Command{
		Name:     "demo",
		Category: "Try",
		Usage:    "a gateway, a NAT and three clients in namespaces; under a minute, nothing is left",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "sabotage", Hidden: true, Usage: "break something, to see that the demo notices: " + strings.Join(demo.Sabotages, ", ")},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			sabotage := c.String("sabotage")
			if sabotage != "" && !slices.Contains(demo.Sabotages, sabotage) {
				return usage("--sabotage takes %s", strings.Join(demo.Sabotages, ", "))
			}
			if os.Geteuid() != 0 {
				return errors.New("the demo makes network namespaces and loads an XDP program: run it as root")
			}
			if !lab.Isolated() {
				return isolateDemo()
			}
			return playDemo(c.Context, e, sabotage)
		},
	}
}

// isolateDemo runs this command once more, in namespaces of its own.
func isolateDemo() error {
	code, err := lab.Reexec(os.Args[1:], nil)
	if err != nil {
		return fmt.Errorf("namespaces for the demo: %w", err)
	}
	if code != 0 {
		return &codeError{code: code}
	}
	return nil
}

func playDemo(ctx context.Context, e env, sabotage string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	err = demo.Run(ctx, e.stdout, self, sabotage)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	return err
}
