package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/pcap"
	"github.com/ikepulse/ikepulse/cmd/internal/replay"
)

func replayCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "replay", Category: "XDP", Usage: "what XDP makes of each frame of a capture",
		UsageText: "FILE.pcap|- [--all-spis] [--spi DST/SPI]... [--local ADDR]...",
		Description: `Each frame goes through the real program as if it had come in here, and gets a
line of JSON with verdict, reason and class; the last line sums them up. Reads
pcap and pcapng, Ethernet and raw IP; a frame that cannot be run is not_runnable,
and captured_bytes stands where less of a frame was captured than came. No peer
is known, so keepalives are strangers'. Needs root for the program, which is
attached to nothing and ends with the command; a running gateway is not touched.

Example: ikepulse replay trace.pcap --all-spis | grep -v '"verdict":"pass"'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all-spis", Usage: "every inbound SPI of the capture is known"},
			&cli.StringSliceFlag{Name: "spi", Usage: "`DST/SPI` is known, as 198.51.100.1/0x4a01f3c2, of AH with /ah behind; repeatable"},
			&cli.StringSliceFlag{Name: "local", Usage: "`ADDR` is ours; repeatable; default: every destination"},
			&cli.IntFlag{Name: "natt-port", Value: 4500, Usage: "`PORT` of NAT traversal; default 4500"},
		},
		Action: func(c *cli.Context) error {
			name, err := oneArgument(c, "a capture, or - for stdin")
			if err != nil {
				return err
			}
			o, err := replayOptions(c)
			if err != nil {
				return err
			}
			f := os.Stdin
			if name != "-" {
				if f, err = os.Open(name); err != nil {
					return err
				}
			}
			defer f.Close()
			capture, err := rereadable(c.Context, f, mostPiped)
			if err != nil {
				return adviseReplay(name, err)
			}
			out := bufio.NewWriterSize(e.stdout, 1<<16)
			err = replay.Run(c.Context, out, capture, o)
			// An error of the output comes up again here.
			if flushed := out.Flush(); flushed != nil {
				return flushed
			}
			return adviseReplay(name, err)
		},
	}
}

func replayOptions(c *cli.Context) (o replay.Options, err error) {
	o.AllSAs = c.Bool("all-spis")
	for _, text := range c.StringSlice("local") {
		address, err := netip.ParseAddr(text)
		if err != nil || address.Zone() != "" {
			return o, usage("--local %q: want an address, as in 198.51.100.1", text)
		}
		o.Locals = append(o.Locals, address.Unmap())
	}
	for _, text := range c.StringSlice("spi") {
		sa, err := replay.ParseSA(text)
		if err != nil {
			return o, usage("--spi %v", err)
		}
		if len(o.Locals) > 0 && !slices.Contains(o.Locals, sa.Dst) {
			return o, usage("--spi %s: nothing to it is inbound, for no --local says that %s is ours", sa, sa.Dst)
		}
		o.SAs = append(o.SAs, sa)
	}
	port := c.Int("natt-port")
	if port < 1 || port > 65535 {
		return o, usage("--natt-port %d: want 1 to 65535", port)
	}
	o.NATTPort = uint16(port)
	return o, nil
}

// mostPiped is how many bytes of a pipe are kept.
const mostPiped = 256 << 20

// rereadable makes a capture one that can be read twice: what comes through a
// pipe is kept in memory, once it has begun as a capture does.
func rereadable(ctx context.Context, f *os.File, most int64) (io.ReadSeeker, error) {
	if _, err := f.Seek(0, io.SeekCurrent); err == nil {
		return f, nil
	}
	var all bytes.Buffer
	read := make(chan error, 1)
	// Ends with the pipe, or with the process.
	go func() {
		_, err := pcap.NewReader(io.TeeReader(f, &all))
		if err == nil {
			_, err = all.ReadFrom(io.LimitReader(f, most+1-int64(all.Len())))
		}
		if err == nil && int64(all.Len()) > most {
			err = fmt.Errorf("more than %d MB come through the pipe: write them to a file, which is not kept in memory", most>>20)
		}
		read <- err
	}()
	select {
	case err := <-read:
		return bytes.NewReader(all.Bytes()), err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// unpackers are for files that begin as these do.
var unpackers = []struct{ magic, command string }{
	{"\x1f\x8b", "zcat"}, {"\xfd7zX", "xzcat"}, {"\x28\xb5\x2f\xfd", "zstdcat"}, {"BZh", "bzcat"},
}

// adviseReplay says what else to do.
func adviseReplay(name string, err error) error {
	if !errors.Is(err, pcap.ErrFormat) {
		return err
	}
	err = fmt.Errorf("%s: %w", cmp.Or(strings.TrimPrefix(name, "-"), "stdin"), err)
	var magic pcap.MagicError
	if !errors.As(err, &magic) {
		return err
	}
	for _, u := range unpackers {
		if bytes.HasPrefix(magic[:], []byte(u.magic)) {
			return fmt.Errorf("%w, so it is compressed: %s %s | ikepulse replay -", err, u.command, name)
		}
	}
	return fmt.Errorf("%w; replay reads pcap and pcapng, which tcpdump -w and Wireshark write", err)
}
