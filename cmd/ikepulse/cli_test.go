package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// run runs a command line in this process.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = ikepulse(t.Context(), env{&out, &errs, true}, append([]string{"ikepulse"}, args...))
	return code, out.String(), errs.String()
}

func TestHelp(t *testing.T) {
	app := newApp(env{})
	for _, args := range [][]string{nil, {"--help"}, {"-h"}} {
		code, out, errs := run(t, args...)
		if code != 0 || errs != "" {
			t.Errorf("%q: %d, %s", args, code, errs)
		}
		golden(t, "help", out)
	}
	for _, c := range app.Commands {
		code, out, errs := run(t, c.Name, "--help")
		if code != 0 || errs != "" {
			t.Errorf("%s --help: %d, %s", c.Name, code, errs)
		}
		golden(t, "help-"+c.Name, out)
		if c.Category != "" && !slices.Contains(groups, c.Category) {
			t.Errorf("%s stands in no group of the help", c.Name)
		}
	}
}

// TestUsageErrors: exit code 2, one line that says what to do instead.
func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ line, says string }{
		{"stauts", "no such command: stauts; did you mean status?"},
		{"frobnicate", "no such command: frobnicate; see ikepulse --help"},
		{"--instanze x status", "ikepulse has no flag --instanze; did you mean --instance?"},
		{"status --jsn", "ikepulse status has no flag --jsn; did you mean --json?"},
		{"status --frobnicate", "ikepulse status has no flag --frobnicate; see ikepulse status --help"},
		{"status -x", "ikepulse status has no flag --x; see ikepulse status --help"},
		{"status now", `status takes no arguments, got "now"`},
		{"run now", `run takes no arguments, got "now"`},
		{"version now", `version takes no arguments, got "now"`},
		{"initiate", "initiate takes one argument: the name of a connection"},
		{"terminate a b", `terminate takes one argument: a connection, a peer, an address, an SPI, or "*"`},
		{"probe", `probe takes one argument: a connection, a peer, an address, an SPI, or "*"`},
		{"detach", "detach takes the names of interfaces, or --all"},
		{"detach --all eth0", "detach takes the names of interfaces, or --all"},
		{"sas a b", "sas takes one argument at most: a connection, a peer, an address or an SPI"},
		{"peers a b", "peers takes one argument at most: a connection, a peer, an address or an SPI"},
		{"sas --sort size", `--sort "size": one of peer, idle, proof, up`},
		{"sas --limit many", "--limit many: want a whole number"},
		{"sas --limit", "--limit: a value is missing"},
		{"sas --limit -1", "--limit -1: want 0 to"},
		{"attach eth0 --capacity 99999999999999999999", "--capacity 99999999999999999999: want a whole number"},
		{"attach eth0 --capacity 0", "--capacity 0: want 1 to 2097152 tunnels"},
		{"attach eth0 --keepalive sometime", "--keepalive sometime: want answer, absorb or pass"},
		{"attach eth0 --answer-interval -5s", "--answer-interval -5s: want 1s to 1h"},
		{"attach eth0 --pass-every -1", "--pass-every -1: want 0 to"},
		{"follow eth0 --keepalive sometime", "--keepalive sometime: want absorb or pass"},
		{"follow eth0 --every -1s", "--every -1s: want a time, or 0 for changes alone"},
		{"stats --all=x", "--all x: want no value"},
		{"--instance", "--instance: a value is missing"},
		{"stauts --help", "no such command: stauts; did you mean status?"},
		{"why --help", "no such command: why; see ikepulse --help"},
		{"stats --rate 99ms", "--rate 99ms: not less than 100ms"},
		{"stats --watch -1s", "--watch -1s: not less than 100ms"},
		{"stats --watch 0s", "--watch 0s: not less than 100ms"},
		{"stats --watch 1s --rate 1s", "stats takes --rate, which ends, or --watch, which goes on, not both"},
		{"attach eth0 --answer-interval 100ms", "--answer-interval 100ms: want 1s to 1h"},
		{"attach eth0 --answer-interval 2h", "--answer-interval 2h0m0s: want 1s to 1h"},
		{"attach eth0 --answer-interval 0s", "--answer-interval 0s: want 1s to 1h"},
		{"stats --rate 10", "--rate 10: want a unit behind it, as in 10s"},
		{"stats --rate soon", "--rate soon: want a time with its unit, as 500ms, 10s or 5m"},
		{"attach eth0 --answer-interval 10", "--answer-interval 10: want a unit behind it, as in 10s"},
		{"--instance ../x status", `--instance "../x": use up to 32 letters`},
		{"--instance _x status", `--instance "_x"`},
		{"--instance abcdefghijklmnopqrstuvwxyz0123456 status", "--instance"},
		{"--netns= status", `--netns "": want the name of a network namespace, or a path`},
		{"check -- --config", `check takes no arguments, got "--config"`},
	} {
		code, out, errs := run(t, strings.Fields(c.line)...)
		if code != exitUsage || out != "" || !strings.HasPrefix(errs, "ikepulse: "+c.says) || strings.Count(errs, "\n") != 1 {
			t.Errorf("ikepulse %s: exit code %d, printed %q, said %q, want %q", c.line, code, out, errs, c.says)
		}
	}
}

// TestOrder: flags may stand anywhere before "--".
func TestOrder(t *testing.T) {
	app := newApp(env{})
	for _, c := range [][2]string{
		{"status", "status"},
		{"status --json", "status --json"},
		{"status --instance x --json", "--instance x status --json"},
		{"--instance x status", "--instance x status"},
		{"--instance=x status --netns=y", "--instance=x --netns=y status"},
		{"attach eth0 --keepalive absorb eth1", "attach --keepalive absorb -- eth0 eth1"},
		{"attach eth0 --keepalive=absorb eth1", "attach --keepalive=absorb -- eth0 eth1"},
		{"detach eth0 --all", "detach --all -- eth0"},
		{"attach attach", "attach -- attach"},
		{"terminate -- --json --instance", "terminate -- --json --instance"},
		{"terminate -", "terminate -- -"},
		{"frob --json status", "--json -- frob status"},
		{"sas --limit", "sas --limit"},
		{"status --frob 5", "status --frob -- 5"},
	} {
		got := strings.Join(flagsFirst(app, append([]string{"ikepulse"}, strings.Fields(c[0])...))[1:], " ")
		if got != c[1] {
			t.Errorf("%q became %q, want %q", c[0], got, c[1])
		}
	}
}

// TestNotRunning: what needs the daemon says so and exits with 3. No instance
// of this name has ever been.
func TestNotRunning(t *testing.T) {
	for _, line := range []string{"status", "status --json", "sas", "peers --json", "stats", "stats --watch 1s", "initiate x", "terminate x", "probe x", "events"} {
		args := append(strings.Fields(line), "--instance", "never-was")
		code, out, errs := run(t, args...)
		noun := strings.HasPrefix(line, "status")
		if code != exitDegraded || noun != (errs == "") || noun != (out != "") || !strings.Contains(out+errs, "not running") {
			t.Errorf("%s: exit code %d, printed %q, said %q", line, code, out, errs)
		}
	}
}

// TestWithoutRights: whoever is not root is told to be, and not that somebody
// else is in the way.
func TestWithoutRights(t *testing.T) {
	s := newSite(t)
	s.want(s.Gateway, 0, nil, "attach", "g0")
	if err := os.MkdirAll("/run/ikepulse", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"status", "sas", "peers --json", "stats", "detach --all", "detach g0", "follow lo", "follow lo --instance other", "--netns /proc/1/ns/net status"} {
		cmd := itself(t, strings.Fields(line)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		_, errs, err := ended(cmd)
		if err == nil || cmd.ProcessState.ExitCode() != exitError || !strings.Contains(errs, "permission denied") || !strings.HasSuffix(errs, "; run it as root\n") || strings.Contains(errs, "running already") {
			t.Errorf("%s: %v, said %q", line, err, errs)
		}
	}
	s.want(s.Gateway, 0, nil, "detach", "g0")
}

func TestBadConfigs(t *testing.T) {
	writeConfig(t, strings.Replace(goodConfig, "dpd:", "dbd:", 1))
	for _, command := range []string{"run", "check", "attach"} {
		code, out, errs := run(t, command, "--config", "ikepulse.yaml", "--instance", "never-was")
		const want = `ikepulse.yaml:4:12: defaults.dbd: no such key; did you mean "dpd"?`
		if code != exitError || !strings.Contains(out+errs, want) || !strings.Contains(out+errs, "1 problem; nothing was changed\n") {
			t.Errorf("%s: exit code %d, printed %q, said %q", command, code, out, errs)
		}
		code, out, errs = run(t, command, "--config", "none.yaml", "--instance", "never-was")
		if code != exitError || !strings.Contains(out+errs, "none.yaml: no such file or directory") {
			t.Errorf("%s: exit code %d, printed %q, said %q", command, code, out, errs)
		}
	}
}

func TestNetnsOfNoName(t *testing.T) {
	if code, _, errs := run(t, "--netns", "never-was", "status"); code != exitError || !strings.Contains(errs, "--netns: open /run/netns/never-was") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	// Its own namespace is where the process is already.
	if code, out, errs := run(t, "--netns", "/proc/self/ns/net", "version"); code != 0 || !strings.HasPrefix(out, "ikepulse "+version) {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
}

// TestNoSecrets: nothing that is printed about a configuration shows a key.
func TestNoSecrets(t *testing.T) {
	writeConfig(t, goodConfig+"control: {socket: /proc/nowhere/x.sock}\n")
	const canary = "canary-of-more-than-twenty-bytes"
	if err := os.WriteFile("a.psk", []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, errs := run(t, "check", "--config", "ikepulse.yaml")
	_, more, evenMore := run(t, "run", "--config", "ikepulse.yaml", "--instance", "never-was") // ends with that
	if all := out + errs + more + evenMore; strings.Contains(all, "canary") || !strings.Contains(all, "is good") {
		t.Errorf("printed: %s", all)
	}
}

// TestInstancesAreApart: no two share a place.
func TestInstancesAreApart(t *testing.T) {
	seen := map[any]string{}
	for _, name := range []string{"default", "demo", "lab", "a-name-of-thirty-two-characters-", "a-name-of-thirty-two-characters_"} {
		n := gateway.NamesOf(name)
		if len(n.TUN) > 15 {
			t.Errorf("%s: interface name %s", name, n.TUN)
		}
		for _, place := range []any{n.Socket, n.Lock, n.Records, n.TUN, n.Table} {
			if seen[place] != "" {
				t.Errorf("%v belongs to %s and %s", place, seen[place], name)
			}
			seen[place] = name
		}
	}
}
