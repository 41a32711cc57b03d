package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/measure"
)

// clients are the product's own initiators, in one process.
type clients struct {
	*lab.Process
	out *lab.Transcript
}

// callers is what the clients say of themselves.
type callers struct {
	Peers           int       `json:"peers"`
	Up              int       `json:"up"`
	Refused         int       `json:"refused"`
	Refusals        []refusal `json:"refusals"`
	Unfinished      int       `json:"unfinished"`
	NotCalled       int       `json:"not_called"`
	SetupP50MS      float64   `json:"setup_p50_ms"`
	SetupP99MS      float64   `json:"setup_p99_ms"`
	WallMS          int64     `json:"wall_ms"`
	CallingMS       int64     `json:"calling_ms"`
	Retransmissions uint64    `json:"retransmissions"`
	DroppedHere     uint64    `json:"answers_dropped_here"`
}

// refusal is a reason and how many have failed for it.
type refusal struct {
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

func (c config) startClients(s *site, a arm, dir string) (*clients, error) {
	args := []string{"loadtest", gatewayAddr.String(), "--json", "--peers", fmt.Sprint(a.clients),
		"--psk-file", filepath.Join(dir, "psk"), "--gateway-id", "gw.example", "--remote-ts", "10.99.0.0/16",
		"--proposal", "aes128gcm16-prfsha256-x25519", "--esp-proposal", "aes128gcm16", "--hold", c.hold.String()}
	if !a.one {
		args = append(args, "--from", clientsOwn.String())
	}
	if c.timeout > 0 {
		args = append(args, "--timeout", c.timeout.String())
	}
	cl := &clients{out: new(lab.Transcript)}
	var err error
	cl.Process, err = s.clients.Start(lab.Command{
		Path: filepath.Join(c.built, product), Args: args, Output: cl.out,
		Prepare: func() error { return measure.Pin(c.clientCPU) },
	})
	return cl, err
}

// ended waits for their end. That not all are up is no error.
func (c *clients) ended() (r callers, err error) {
	var exit *exec.ExitError
	if err := c.Wait(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return r, fmt.Errorf("the clients: %w\n%s", err, c.out)
	}
	// What they say on stderr comes behind it.
	if err := json.NewDecoder(strings.NewReader(c.out.String())).Decode(&r); err != nil {
		return r, fmt.Errorf("the clients: %w\n%s", err, c.out)
	}
	return r, nil
}
