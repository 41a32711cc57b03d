package main

import (
	"os"
	"strings"
	"testing"
)

// peersConfig has a connection of each kind.
const peersConfig = `listen: {addresses: [198.51.100.1]}
shards: 1
defaults:
  local: {auth: psk, id: vpn.example.org}
  proposals: [aes256gcm16-prfsha384-x25519]
connections:
  anyone:
    remote: {auth: psk, id: "%any"}
    pools: [guests]
    children: {net: {local_ts: [10.0.0.1/32]}}
  staff:
    remote: {auth: psk, id: "*.example.org"}
    pools: [staff, staff6]
    unique: replace
    max_sas: 2
    max_leases: 1
    children: {net: {local_ts: [10.0.0.0/8]}}
  berlin:
    remote: {auth: psk, id: berlin.example.org, addresses: [203.0.113.7]}
    proposals: [aes256gcm16-prfsha384-x25519, aes256-sha256-ecp256]
    children: {lan: {local_ts: [10.0.0.0/8, "192.168.0.0/16[tcp/443]"], remote_ts: [10.20.0.0/16]}}
  berlin-backup:
    remote: {auth: psk, id: berlin.example.org, addresses: [203.0.113.8, 203.0.113.9]}
    children: {lan: {local_ts: [10.0.0.0/8], remote_ts: [10.20.0.0/16]}}
  berlin-lab:
    local: {id: lab.example.org}
    remote: {auth: psk, id: berlin.example.org}
    children: {lan: {local_ts: [10.0.0.0/8], remote_ts: [10.21.0.0/16]}}
  mail:
    local: {id: lab.example.org}
    remote: {auth: psk, id: "*@example.org"}
    children: {lan: {local_ts: [10.0.0.0/8]}}
pools:
  guests: {addresses: 10.99.0.0/24}
  staff: {addresses: 10.98.0.0/24}
  staff6: {addresses: "2001:db8:98::/64"}
secrets:
  - {ids: [vpn.example.org, "%any"], psk_file: a.psk}
  - {id: "*.example.org", psk_file: a.psk}
  - {ids: [vpn.example.org, berlin.example.org], psk_file: a.psk}
`

// TestCheckAs: check says what a peer gets and why, or by which rule he is refused.
func TestCheckAs(t *testing.T) {
	for name, c := range map[string]struct {
		args string
		code int
	}{
		"check-as":             {"anna.example.org --from 198.18.0.1", 0}, // case 19: the order of the file does not matter
		"check-as-anyone":      {"Anna@Home.example.net", 0},
		"check-as-pinned":      {"berlin.example.org --from 203.0.113.7", 0}, // nor that he also fits staff
		"check-as-from-none":   {"berlin.example.org --to vpn.example.org", 0},
		"check-as-other":       {"berlin.example.org --from 203.0.113.9 --to vpn.example.org", 0},
		"check-as-to":          {"berlin.example.org --to lab.example.org", 0},
		"check-as-elsewhere":   {"berlin.example.org --from 198.18.0.1 --to vpn.example.org", exitError},
		"check-as-not-as":      {"anna.example.org --to lab.example.org", exitError},
		"check-as-no-secret":   {"anna@example.org", exitError},
		"check-as-unknown-own": {"keyid:#00ff --to paris.example.org", exitError},
	} {
		t.Run(name, func(t *testing.T) {
			folder, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			writeConfig(t, peersConfig)
			code, out, errs := run(t, append([]string{"check", "--config", "ikepulse.yaml", "--as"}, strings.Fields(c.args)...)...)
			if code != c.code || errs != "" {
				t.Errorf("exit code %d, %s", code, errs)
			}
			t.Chdir(folder)
			golden(t, name, out)
			if strings.Contains(out, "a secret of more") {
				t.Error("a secret was printed")
			}
		})
	}
	writeConfig(t, strings.Replace(peersConfig, "  anyone:", "  any one:", 1))
	if code, out, _ := run(t, "check", "--config", "ikepulse.yaml", "--as", "anna.example.org"); code != exitError || !strings.HasSuffix(out, "nothing was changed\n") {
		t.Errorf("of a bad configuration: %d, %s", code, out)
	}
}

// TestCheckAsNobody: nobody gets a connection where none is for him.
func TestCheckAsNobody(t *testing.T) {
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	writeConfig(t, strings.NewReplacer(`"%any"}`, "keyid:box}", `"%any"]`, "keyid:box]").Replace(peersConfig))
	code, out, errs := run(t, "check", "--config", "ikepulse.yaml", "--as", "anna@home.example.net")
	if code != exitError || errs != "" {
		t.Errorf("exit code %d, %s", code, errs)
	}
	t.Chdir(folder)
	golden(t, "check-as-nobody", out)
}

func TestCheckAsUsage(t *testing.T) {
	for line, says := range map[string]string{
		"--from 203.0.113.7":             "--from and --to say more about a peer; name it with --as ID",
		"--to vpn.example.org":           "--from and --to say more about a peer; name it with --as ID",
		"--as 10.0.0.256":                `--as: "10.0.0.256" looks like an address and is not one`,
		"--as=":                          "--as: the identity is empty",
		"--as *@example.org":             `--as: "*@example.org" is not a mailbox`,
		"--as *.example.org":             `--as: "*.example.org" is no identity`,
		"--as %any":                      `--as: "%any" is no identity`,
		"--as a.b --to @vpn.example.org": `--to: "@vpn.example.org": names are written without a leading @; write "vpn.example.org"`,
		"--as a.b --to=":                 "--to: the identity is empty",
		"--as a.b --from 203.0.113.777":  "--from 203.0.113.777: want the IP address of one host",
		"--as a.b --from 203.0.113.0/24": "want the IP address of one host",
		"--as a.b --from fe80::1%eth0":   "want the IP address of one host",
		"--as a.b --from ::ffff:1.2.3.4": "want the IP address of one host",
		"--as a.b --from 0.0.0.0":        "want the IP address of one host",
		"--as a.b --from 224.0.0.1":      "want the IP address of one host",
		"--as a.b --from berlin.test":    "--from berlin.test: want the IP address of one host",
		"--as a.b --from=":               "want the IP address of one host",
		"--as a.b anna":                  `check takes no arguments, got "anna"`,
		"--as":                           "--as: a value is missing",
		"--as a.b --fromm 203.0.113.7":   "did you mean --from?",
	} {
		code, out, errs := run(t, append([]string{"check", "--config", "none.yaml"}, strings.Fields(line)...)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, says) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: %d, %s%s", line, code, out, errs)
		}
	}
}
