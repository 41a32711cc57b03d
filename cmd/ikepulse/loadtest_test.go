package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/loadtest"
)

func float(f float64) *float64 { return &f }

func TestRenderLoadtest(t *testing.T) {
	all := loadtest.Report{Gateway: netip.MustParseAddr("198.51.100.1"), Peers: 4000, Sources: 4000, Up: 4000, Refusals: []loadtest.Refusal{},
		SetupP50MS: float(223.6), SetupP99MS: float(390), SetupMaxMS: float(424.1), CallingMS: 688, WallMS: 805}
	some := all
	some.PerSecond, some.Sources, some.Up, some.Refused, some.Unfinished, some.NotCalled = 500, 1, 2310, 22, 8, 1660
	some.Refusals = []loadtest.Refusal{{Reason: "no answer", Count: 12}, {Reason: "AUTHENTICATION_FAILED", Count: 9}, {Reason: "no child SA: \x1b[2J", Count: 1}}
	some.Complaints = []loadtest.Refusal{{Reason: "NO_PROPOSAL_CHOSEN", Count: 7}}
	some.SetupP50MS, some.SetupP99MS, some.SetupMaxMS = float(0.9), float(4012), float(165000)
	some.Retransmissions, some.LateFirst, some.LateMaxMS, some.DroppedHere = 4711, 37, 84, 1
	up := 2309
	some.HoldMS, some.UpAfterHold, some.WallMS = 30000, &up, 170400
	none := loadtest.Report{Gateway: all.Gateway, Peers: 5000, Sources: 5000, Refused: 16, NotCalled: 4984,
		Refusals: []loadtest.Refusal{{Reason: "no answer", Count: 16}}, Retransmissions: 32, CallingMS: 9, WallMS: 12001}
	for name, r := range map[string]loadtest.Report{"loadtest": all, "loadtest-some": some, "loadtest-silent": none} {
		golden(t, name, printed(t, func(w io.Writer) error { return renderLoadtest(w, r) }))
	}
	golden(t, "loadtest-json", printed(t, func(w io.Writer) error { return printJSON(w, some) }))
	golden(t, "loadtest-silent-json", printed(t, func(w io.Writer) error { return printJSON(w, none) }))
}

func TestBar(t *testing.T) {
	var b strings.Builder
	for _, p := range []loadtest.Progress{
		{Peers: 20000},
		{Peers: 20000, Begun: 9000, Up: 7500, Failed: 21, Elapsed: 2500 * time.Millisecond},
		{Peers: 20, Begun: 20, Elapsed: 31 * time.Second, Complaint: "NO_PROPOSAL_CHOSEN"},
		{Peers: 20, Begun: 20, Up: 19, Failed: 1, Elapsed: 31 * time.Second, Stage: "saying goodbye"},
	} {
		b.WriteString(barText(p) + "\n")
	}
	golden(t, "loadtest-bar", b.String())
}

// TestLoadtestRefuses: what cannot be tried is said before anybody calls.
func TestLoadtestRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"psk": 0o600, "open": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("a secret of more than twenty bytes\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		code       int
		line, says string
	}{
		{exitUsage, "loadtest", "loadtest takes one argument: the address of a gateway"},
		{exitUsage, "loadtest vpn.example.org", "vpn.example.org: want the address of a gateway"},
		{exitUsage, "loadtest 0.0.0.0", "0.0.0.0: want the address of a gateway"},
		{exitUsage, "loadtest 224.0.0.1", "224.0.0.1: want the address of a gateway"},
		{exitUsage, "loadtest fe80::1%lo", "fe80::1%lo: want the address of a gateway"},
		{exitUsage, "loadtest 127.0.0.1", "--psk-file: whose secret"},
		{exitUsage, "loadtest 127.0.0.1 --peers 0", "--peers 0: want 1 to"},
		{exitUsage, "loadtest 127.0.0.1 --peers 1048577", "--peers 1048577: want 1 to"},
		{exitUsage, "loadtest 127.0.0.1 --rate 0", "--rate 0: want 1 to"},
		{exitUsage, "loadtest 127.0.0.1 --rate 1000001", "--rate 1000001: want 1 to"},
		{exitUsage, "loadtest 127.0.0.1 --hold -1s", "--hold -1s: want a time"},
		{exitUsage, "loadtest 127.0.0.1 --timeout -1s", "--timeout -1s: want a time"},
		{exitUsage, "loadtest 127.0.0.1 --hold 5", "--hold 5: want a unit behind it, as in 5s"},
		{exitUsage, "loadtest 127.0.0.1 --id @", `--id `},
		{exitUsage, "loadtest 127.0.0.1 --gateway-id @", `--gateway-id `},
		{exitUsage, "loadtest 127.0.0.1 --proposal aes128", "--proposal aes128: "},
		{exitUsage, "loadtest 127.0.0.1 --esp-proposal x25519", "--esp-proposal x25519: "},
		{exitUsage, "loadtest 127.0.0.1 --remote-ts 10.0.0.1/8", "--remote-ts 10.0.0.1/8: it has bits behind the prefix length; write 10.0.0.0/8"},
		{exitUsage, "loadtest 127.0.0.1 --from 10.8.0.0", "--from 10.8.0.0/32: 10.8.0.0 is not an address of this host"},
		{exitUsage, "loadtest 127.0.0.1 --from 10.8.0.0/24", "--from 10.8.0.0/24: 10.8.0.1 is not an address of this host, so no answer would come here; make it one: ip route add local 10.8.0.0/24 dev lo"},
		{exitUsage, "loadtest 127.0.0.1 --from 127.0.0.0/24", "--from 127.0.0.0/24: 127.0.0.1 itself is in it"},
		{exitUsage, "loadtest 127.0.0.1 --from ::1", "--from ::1/128: not of the same family as 127.0.0.1"},
		{exitError, "loadtest 127.0.0.1 --psk-file " + dir + "/open", dir + "/open: open to others (mode 0644); make it 0600"},
		{exitError, "loadtest 127.0.0.1 --psk-file " + dir + "/none", dir + "/none: no such file or directory"},
	} {
		code, out, errs := run(t, strings.Fields(c.line)...)
		if code != c.code || out != "" || !strings.HasPrefix(errs, "ikepulse: "+c.says) || strings.Count(errs, "\n") != 1 {
			t.Errorf("ikepulse %s: exit code %d, printed %q, said %q, want %q", c.line, code, out, errs, c.says)
		}
	}
}

// TestLoadtestConfig: what is said on the command line is what is tried.
func TestLoadtestConfig(t *testing.T) {
	psk := filepath.Join(t.TempDir(), "psk")
	if err := os.WriteFile(psk, []byte("a secret of more than twenty bytes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	parsed := func(line string) (conf loadtest.Config) {
		cmd := loadtestCommand(env{})
		cmd.Action = func(c *cli.Context) (err error) {
			conf, err = loadtestConfig(env{stderr: io.Discard}, c)
			return err
		}
		app := &cli.App{Commands: []*cli.Command{cmd}}
		if err := app.Run(append([]string{"ikepulse", "loadtest", "--psk-file", psk}, strings.Fields(line)...)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return conf
	}
	address := netip.MustParseAddr
	want := loadtest.Config{Gateway: address("127.0.0.1"), Peers: 100, Sources: []netip.Addr{address("127.0.0.1")},
		PSK: []byte("a secret of more than twenty bytes"), Identity: "loadtest-%d@example.org", GatewayID: "%any",
		Proposals: loadProposals, ESP: loadESPProposals, Remote: netip.MustParsePrefix("0.0.0.0/0"), VirtualIP: true}
	for _, gateway := range []string{"127.0.0.1", "::ffff:127.0.0.1"} {
		if got := parsed(gateway); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", gateway, got, want)
		}
	}
	want = loadtest.Config{Gateway: address("127.0.0.1"), Peers: 5, Rate: 7, Hold: time.Second, Timeout: time.Minute,
		Sources: []netip.Addr{address("127.0.1.1"), address("127.0.1.2")}, PSK: want.PSK, Identity: "a%d", GatewayID: "b",
		Proposals: []string{"aes256-sha512-ecp384"}, ESP: []string{"aes256-sha256"}, Remote: netip.MustParsePrefix("10.0.0.0/8")}
	if got := parsed("--peers 5 --rate 7 --hold 1s --timeout 1m --from 127.0.1.0/30 --id a%d --gateway-id b --proposal aes256-sha512-ecp384 " +
		"--esp-proposal aes256-sha256 --remote-ts 10.0.0.0/8 --vip=false 127.0.0.1"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := parsed("::1"); got.Remote != netip.MustParsePrefix("::/0") || got.Sources[0] != address("::1") {
		t.Errorf("::1: from %v to %v", got.Sources, got.Remote)
	}
}

// terminal is a new one, and what shows on it.
func terminal(t *testing.T) (at *os.File, shown *os.File) {
	t.Helper()
	shown, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shown.Close() })
	if err := unix.IoctlSetPointerInt(int(shown.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(shown.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if at, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = at.Close() })
	return at, shown
}

// TestLoadtestTerminal: a line shows how it goes, and is gone when the report
// comes, which is on stdout alone.
func TestLoadtestTerminal(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		at, shown := terminal(t)
		here := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		conf := loadtest.Config{Gateway: here[0], Peers: 20, Sources: here, PSK: []byte("a secret of more than twenty bytes"), Identity: "%d",
			GatewayID: "%any", Proposals: loadProposals, ESP: loadESPProposals, Remote: netip.MustParsePrefix("0.0.0.0/0")}
		ctx, interrupt := context.WithCancel(t.Context())
		var out strings.Builder
		ended := make(chan error, 1)
		go func() { ended <- runLoadtest(ctx, env{stdout: &out, stderr: at}, conf, asJSON) }()
		var screen string
		until := func(text string) {
			for b := make([]byte, 4096); !strings.Contains(screen, text); {
				n, err := shown.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				screen += string(b[:n])
			}
		}
		until("20 waiting")
		interrupt()
		if err := <-ended; err == nil || err.Error() != "interrupted: 0 of 20 peers up" {
			t.Errorf("it ends with %v", err)
		}
		fmt.Fprint(at, "the end")
		until("the end")
		const kept = "\x1b[?7l" // to its line
		if !strings.HasPrefix(screen, "\r\x1b[K"+kept) || !strings.HasSuffix(screen, "\x1b[?7h\r\x1b[Kthe end") || strings.Contains(screen, "\n") {
			t.Errorf("on the terminal: %q", screen)
		}
		if json.Valid([]byte(out.String())) != asJSON || !asJSON && !strings.HasPrefix(out.String(), "gateway    127.0.0.1, called by 20 peers") {
			t.Errorf("JSON %v: printed %q", asJSON, out.String())
		}
	}
}
