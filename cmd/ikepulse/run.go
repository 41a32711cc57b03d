package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// defaultConfig is read where none is named.
const defaultConfig = "/etc/ikepulse/ikepulse.yaml"

var configFlag = &cli.StringFlag{Name: "config", Value: defaultConfig, Usage: "`FILE` of the configuration; default " + defaultConfig}

func runCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "run", Category: "Run", Usage: "run the gateway",
		UsageText: "[--config FILE] [--no-pin]",
		Description: `Runs in the foreground and logs to stderr. The first SIGTERM, SIGINT or SIGQUIT
deletes the tunnels, for 5 seconds at most, and ends it; the second ends it at
once. SIGHUP changes nothing yet, and a log that nobody reads stops nothing.
The XDP program and its maps stay, pinned in /sys/fs/bpf/ikepulse/<instance>,
until "ikepulse detach". Tunnels do not survive a restart yet.

Example: ikepulse run --config /etc/ikepulse/ikepulse.yaml`,
		Flags: []cli.Flag{
			configFlag,
			&cli.BoolFlag{Name: "no-pin", Usage: "where there is no bpffs: XDP ends with the daemon"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			cfg, problems := config.Load(c.String("config"), gateway.Checks)
			if problems != nil {
				fmt.Fprintln(e.stderr, problems.Error())
				return &codeError{code: exitError}
			}
			unix.Umask(0o022) // not the shell's: the groups of control must get to the socket
			outlastReader()
			lines := newLogWriter(e.stderr, cfg.Log)
			defer lines.close()
			log := newLogger(lines, cfg.Log)
			outlastTerminal(c.Context, func() {
				log.Warn("SIGHUP: the configuration cannot be read again yet; restart the daemon for a new one")
			})
			for _, note := range cfg.Notes {
				log.Warn(note.String())
			}
			names := gateway.NamesOf(c.String("instance"))
			if cfg.Control.Socket != "" {
				names.Socket = cfg.Control.Socket
			}
			return gateway.Run(c.Context, gateway.Options{Names: names, Config: cfg, NoPin: c.Bool("no-pin"),
				Version: version, Log: log})
		},
	}
}

func newLogger(w io.Writer, c config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
