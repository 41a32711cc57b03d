// Ikepulse is an IKEv2 gateway for Linux: run `ikepulse --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// Exit codes.
const (
	exitError    = 1
	exitUsage    = 2
	exitDegraded = 3 // degraded, or not running
)

// env is what a command touches of the world, so that a test can stand in.
type env struct {
	stdout, stderr io.Writer
	terminal       bool // stdout is one: tables get a header
}

func main() { os.Exit(program()) }

// program is the process: its command line, its output, its signals.
func program() int {
	if err := forbidDumps(); err != nil {
		fmt.Fprintln(os.Stderr, "ikepulse:", err)
		return exitError
	}
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	return ikepulse(interruptible(), env{os.Stdout, os.Stderr, err == nil}, os.Args)
}

// ikepulse runs one command line and returns its exit code.
func ikepulse(ctx context.Context, e env, args []string) int {
	app := newApp(e)
	err := app.RunContext(ctx, flagsFirst(app, args))
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = errors.New("interrupted")
	}
	var c *codeError
	if !errors.As(err, &c) {
		c = &codeError{exitError, err}
	}
	if errors.Is(c.err, os.ErrPermission) && os.Geteuid() != 0 {
		c = &codeError{c.code, fmt.Errorf("%w; run it as root", c.err)}
	}
	if c.err != nil {
		fmt.Fprintln(e.stderr, "ikepulse:", c.err)
	}
	return c.code
}

// codeError ends a command with a code of its own; without an error, silently,
// because all has been said.
type codeError struct {
	code int
	err  error
}

func (c *codeError) Error() string { return fmt.Sprint(c.err) }
func (c *codeError) Unwrap() error { return c.err }

func usage(format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format, args...)}
}

// newApp is the command line. Nouns change nothing and take --json.
func newApp(e env) *cli.App {
	app := &cli.App{
		Name:  "ikepulse",
		Usage: "an IKEv2 gateway that knows which of its peers are alive",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "instance", Value: "default", Usage: "the set of pins, socket and routing table called `NAME`"},
			&cli.StringFlag{Name: "netns", Usage: "work in the network namespace `NAME|PATH`"},
		},
		Commands: []*cli.Command{
			runCommand(e), checkCommand(e),
			attachCommand(e), detachCommand(e), followCommand(e), replayCommand(e), statsCommand(e),
			statusCommand(e), peersCommand(e), sasCommand(e), eventsCommand(e),
			initiateCommand(e), terminateCommand(e), probeCommand(e),
			demoCommand(e), loadtestCommand(e), versionCommand(e),
		},
		Before: func(c *cli.Context) error {
			if !instanceName(c.String("instance")) {
				return usage("--instance %q: use up to 32 letters, digits, - and _, beginning with a letter or a digit", c.String("instance"))
			}
			if c.IsSet("netns") && c.String("netns") == "" {
				return usage("--netns \"\": want the name of a network namespace, or a path")
			}
			return enterNetns(c.String("netns"))
		},
		Writer:          e.stdout,
		ErrWriter:       e.stderr,
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usage("no such command: %s%s", c.Args().First(), suggestCommand(c.App, c.Args().First()))
			}
			return cli.ShowAppHelp(c)
		},
		// Errors and their codes are main's.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   usageError,
	}
	for _, cmd := range app.Commands {
		cmd.OnUsageError, cmd.HideHelpCommand, cmd.Before = usageError, true, checkValues
		cmd.CustomHelpTemplate = commandHelp(app, cmd)
	}
	app.CustomAppHelpTemplate = appHelp(app)
	return app
}

// instanceName tells whether a name can stand in a path of ours.
func instanceName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return len(s) <= 32 && strings.Trim(s, letters+"-_") == "" && strings.IndexAny(s, letters) == 0
}

// noArguments refuses what a command would otherwise ignore.
func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return usage("%s takes no arguments, got %q", c.Command.Name, c.Args().First())
	}
	return nil
}

// oneArgument is for commands that need exactly one.
func oneArgument(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 || c.Args().First() == "" {
		return "", usage("%s takes one argument: %s", c.Command.Name, what)
	}
	return c.Args().First(), nil
}

var jsonFlag = &cli.BoolFlag{Name: "json", Usage: "print JSON"}
