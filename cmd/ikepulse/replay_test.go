package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/cmd/internal/replay"
	"github.com/ikepulse/ikepulse/test/require"
)

func TestReplay(t *testing.T) {
	require.Have(t, "root", "bpf")
	for name, c := range map[string]struct {
		capture []byte
		flags   string
	}{
		"replay":         {classic(traceEther4+traceKeepalive, traceEther4+traceESPInUDP), "--all-spis"},
		"replay-unknown": {everyKind(), ""},
		"replay-all":     {everyKind(), "--all-spis"},
		"replay-known": {everyKind(), "--spi 198.51.100.1/0x4a01f3c2 --spi=198.51.100.1/3237998081/ah --spi 2001:db8::1/7 " +
			"--local 198.51.100.1 --local=2001:db8::1"},
		"replay-pcapng": {pcapng("eth "+traceEther4+traceESP, "raw "+traceESPInUDP, "raw "+traceESP6, "raw 00", "eth "+traceEther6+traceESP6),
			"--all-spis --natt-port 4501"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"replay", traceFile(t, c.capture)}, strings.Fields(c.flags)...) // flags behind the file
			code, out, errs := run(t, args...)
			if code != 0 || errs != "" {
				t.Errorf("exit code %d, %s", code, errs)
			}
			golden(t, name, out)
		})
	}
}

// summaryOf is the last line.
func summaryOf(t *testing.T, out string) (s replay.Summary, lines int) {
	t.Helper()
	all := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	var last struct{ Summary *replay.Summary }
	if err := json.Unmarshal([]byte(all[len(all)-1]), &last); err != nil || last.Summary == nil {
		t.Fatalf("%v: %.1000s", err, out)
	}
	return *last.Summary, len(all) - 1
}

// TestReplayCases: captures of others with SPIs, through the command line: what
// its flags say is known, and what they do not is not.
func TestReplayCases(t *testing.T) {
	require.Have(t, "root", "bpf")
	dir := require.Cases(t)
	var all []struct {
		File    string
		Frames  int
		Ingress map[string]int `json:"as_ingress_to_gateway"`
		Either  map[string]int `json:"classes_either_direction"`
		SPIs    []struct {
			Dst, SPI string
			Count    uint64
			MaxSeq   uint32 `json:"max_seq"`
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "xdp_expected.json"))
	if err = errors.Join(err, json.Unmarshal(text, &all)); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, want := range all {
		if len(want.SPIs) == 0 {
			continue
		}
		tried++
		t.Run(want.File, func(t *testing.T) {
			if n := want.Either["nonip"]; n > 0 {
				want.Ingress["nonip"] = n
			}
			every, ofFirst := map[string]replay.SPI{}, map[string]replay.SPI{}
			first := want.SPIs[0]
			for _, s := range want.SPIs {
				key := s.Dst + "/0x" + s.SPI
				every[key] = replay.SPI{Packets: s.Count, LastSeq: s.MaxSeq}
				if s.Dst == first.Dst {
					ofFirst[key] = every[key]
				}
			}
			one := first.Dst + "/0x" + first.SPI
			for flags, spis := range map[string]map[string]replay.SPI{
				"":                                    {},
				"--all-spis":                          every,
				"--spi " + one:                        {one: every[one]},
				"--all-spis --local " + first.Dst:     ofFirst,
				"--local " + first.Dst:                {},
				"--all-spis --local 2001:db8::1":      {},
				"--all-spis --spi 2001:db8::1/0xffff": plus(every, "2001:db8::1/0x0000ffff", replay.SPI{}),
			} {
				args := append([]string{"replay", filepath.Join(dir, want.File)}, strings.Fields(flags)...)
				code, out, errs := run(t, args...)
				if code != 0 || errs != "" {
					t.Fatalf("%q: exit code %d, %s", flags, code, errs)
				}
				if flags == "--all-spis" { // and as a process of its own
					if alone, errs, err := ended(itself(t, args...)); alone != out || errs != "" || err != nil {
						t.Errorf("%v: printed %s, said %s; want %s", err, alone, errs, out)
					}
				}
				got, lines := summaryOf(t, out)
				if lines != want.Frames || got.Frames != want.Frames {
					t.Errorf("%q: %d lines, %d frames, want %d", flags, lines, got.Frames, want.Frames)
				}
				if diff := cmp.Diff(spis, got.SPIs); diff != "" {
					t.Errorf("%q: SPIs (-want +got):\n%s", flags, diff)
				}
				if strings.Contains(flags, "--local") {
					continue // not local are others of them
				}
				if diff := cmp.Diff(want.Ingress, got.ByClass); diff != "" {
					t.Errorf("%q: classes (-want +got):\n%s", flags, diff)
				}
			}
		})
	}
	if tried < 6 {
		t.Errorf("%d captures", tried)
	}
}

func plus(m map[string]replay.SPI, key string, value replay.SPI) map[string]replay.SPI {
	all := map[string]replay.SPI{key: value}
	for k, v := range m {
		all[k] = v
	}
	return all
}

// itself is a command line for a copy of this binary, as ikepulse, that is
// killed if it does not end.
func itself(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asProgram+"=yes")
	return cmd
}

// ended runs it to its end.
func ended(cmd *exec.Cmd) (out, errs string, err error) {
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// TestReplayUsage: nothing is read or loaded.
func TestReplayUsage(t *testing.T) {
	const address = `: want DST/SPI, as in 192.0.2.1/0x12345678`
	const number = `: want an SPI of 32 bits that is not 0, in decimal or as 0x12345678`
	for line, says := range map[string]string{
		"":                                    "replay takes one argument: a capture, or - for stdin",
		"a b":                                 "replay takes one argument: a capture, or - for stdin",
		"x --spi 4a01f3c2":                    `--spi "4a01f3c2"` + address,
		"x --spi host/5":                      `--spi "host/5"` + address,
		"x --spi fe80::1%eth0/5":              `--spi "fe80::1%eth0/5"` + address,
		"x --spi 198.51.100.1/4a01f3c2":       `--spi "198.51.100.1/4a01f3c2"` + number,
		"x --spi 198.51.100.1/00000100":       `--spi "198.51.100.1/00000100"` + number,
		"x --spi 198.51.100.1/0x100000000":    `--spi "198.51.100.1/0x100000000"` + number,
		"x --spi 198.51.100.1/0":              `--spi "198.51.100.1/0"` + number,
		"x --local gw":                        `--local "gw": want an address, as in 198.51.100.1`,
		"x --local 198.51.100.1/24":           `--local "198.51.100.1/24": want an address, as in 198.51.100.1`,
		"x --local fe80::1%eth0":              `--local "fe80::1%eth0": want an address, as in 198.51.100.1`,
		"x --spi 10.0.0.1/7 --local 10.0.0.2": "--spi 10.0.0.1/0x00000007: nothing to it is inbound, for no --local says that 10.0.0.1 is ours",
		"x --natt-port 0":                     "--natt-port 0: want 1 to 65535",
		"x --natt-port 65536":                 "--natt-port 65536: want 1 to 65535",
		"x --all-spi":                         "ikepulse replay has no flag --all-spi; did you mean --all-spis?",
	} {
		code, out, errs := run(t, append([]string{"replay"}, strings.Fields(line)...)...)
		if code != exitUsage || out != "" || errs != "ikepulse: "+says+"\n" {
			t.Errorf("replay %s: exit code %d, printed %q, said %q, want %q", line, code, out, errs, says)
		}
	}
}

func TestReplayUnreadable(t *testing.T) {
	require.Have(t, "root", "bpf")
	t.Chdir(t.TempDir())
	whole := classic(traceEther4+traceESP, traceEther4+traceIKE)
	for name, c := range map[string]struct {
		content []byte
		says    string
		frames  int // that come before; -1: not even a summary
	}{
		"none":      {nil, "open none: no such file or directory", -1},
		"folder":    {nil, "read folder: is a directory", -1},
		"empty":     {[]byte{}, "empty: not a capture that can be read: 0 bytes", -1},
		"text":      {[]byte("12:00:01 IP 203.0.113.7"), "text: not a capture that can be read: it begins with 31 32 3a 30; replay reads pcap and pcapng, which tcpdump -w and Wireshark write", -1},
		"x.gz":      {[]byte("\x1f\x8b\x08\x00\x00"), "x.gz: not a capture that can be read: it begins with 1f 8b 08 00, so it is compressed: zcat x.gz | ikepulse replay -", -1},
		"x.zst":     {[]byte("\x28\xb5\x2f\xfd\x00"), "x.zst: not a capture that can be read: it begins with 28 b5 2f fd, so it is compressed: zstdcat x.zst | ikepulse replay -", -1},
		"head":      {whole[:20], "head: not a capture that can be read: the file ends in the middle", -1},
		"truncated": {whole[:len(whole)-1], "truncated: frame 2: not a capture that can be read: the file ends in the middle", 1},
		"damaged":   {append(bytes.Clone(whole), bytes.Repeat([]byte{0xff}, 16)...), "damaged: frame 3: not a capture that can be read: a frame of 4294967295 bytes, 4294967295 of them captured", 2},
	} {
		var err error
		if c.content != nil {
			err = os.WriteFile(name, c.content, 0o600)
		} else if name == "folder" {
			err = os.Mkdir(name, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		code, out, errs := run(t, "replay", name, "--all-spis")
		if code != exitError || errs != "ikepulse: "+c.says+"\n" {
			t.Errorf("%s: exit code %d, said %q, want %q", name, code, errs, c.says)
		}
		if c.frames < 0 {
			if out != "" {
				t.Errorf("%s: printed %s", name, out)
			}
		} else if got, lines := summaryOf(t, out); lines != c.frames || got.Frames != c.frames || got.SPIs["198.51.100.1/0xc0ffee01"].Packets != 1 {
			t.Errorf("%s: printed %s", name, out)
		}
	}
}

// TestReplayWithoutRights: the kernel's refusal, and what to do about it.
func TestReplayWithoutRights(t *testing.T) {
	require.Have(t, "root", "bpf")
	cmd := itself(t, "replay", "-")
	cmd.Stdin = bytes.NewReader(everyKind())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, errs, err := ended(cmd)
	const want = "ikepulse: loading the program: operation not permitted (this process lacks CAP_BPF and CAP_PERFMON and CAP_NET_ADMIN); run it as root\n"
	if err == nil || cmd.ProcessState.ExitCode() != exitError || out != "" || errs != want {
		t.Errorf("%v: printed %q, said %q, want %q", err, out, errs, want)
	}
}

// TestReplayStdin: a pipe, a file, and a file whose beginning somebody else has
// read.
func TestReplayStdin(t *testing.T) {
	require.Have(t, "root", "bpf")
	want, err := os.ReadFile("testdata/replay-all.golden")
	if err != nil {
		t.Fatal(err)
	}
	path := traceFile(t, append([]byte("12345"), everyKind()...))
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	for name, stdin := range map[string]io.Reader{"a pipe": bytes.NewReader(everyKind()), "a file": file} {
		for _, args := range [][]string{{"replay", "-", "--all-spis"}, {"replay", "--all-spis", "/dev/stdin"}} {
			if name == "a file" && args[1] != "-" {
				continue // which would be opened anew
			}
			cmd := itself(t, args...)
			cmd.Stdin = stdin
			out, errs, err := ended(cmd)
			if err != nil || errs != "" || out != string(want) {
				t.Errorf("%s, %q: %v, printed %s, said %s", name, args, err, out, errs)
			}
			if name == "a pipe" {
				stdin = bytes.NewReader(everyKind())
			}
		}
	}
	cmd := itself(t, "replay", "-")
	cmd.Stdin = strings.NewReader("\x1f\x8b\x08\x00")
	if _, errs, err := ended(cmd); err == nil || !strings.HasPrefix(errs, "ikepulse: stdin: not a capture") || !strings.HasSuffix(errs, ": zcat - | ikepulse replay -\n") {
		t.Errorf("%v, %s", err, errs)
	}
}
