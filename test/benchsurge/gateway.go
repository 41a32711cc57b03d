package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/measure"
)

// gatewayConfig is a gateway as it is run: with DPD, and every limit its default.
// Its proposals are those that the bare cryptography is measured with.
const gatewayConfig = `
listen: {addresses: [%s], interfaces: [%s]}
defaults: {proposals: [aes128gcm16-prfsha256-x25519], esp_proposals: [aes128gcm16]}
connections:
  surge:
    local: {auth: psk, id: gw.example}
    remote: {auth: psk, id: "*@example.org"}
    pools: [office]
    children: {net: {local_ts: [10.99.0.0/16]}}
pools:
  office: {addresses: 10.64.0.0/15}
secrets:
  - {id: "*@example.org", psk_file: psk}
control: {socket: %s}
log: {level: warn}
`

const instance = "surge"

// secret is the clients' and the gateway's.
const secret = "a secret of thirty-two characters"

// patience is how long things take at most that take no time.
const patience = 30 * time.Second

// gateway is the product while it runs, on a CPU of its own.
type gateway struct {
	*lab.Process
	ns   *lab.Namespace
	path string // of the program
	http *http.Client
	log  *os.File
}

// startGateway returns once it answers. Its files stand in dir.
func startGateway(c config, s *site, dir string) (*gateway, error) {
	socket, interfaces := filepath.Join(dir, "control.sock"), "g0"
	if s.flood != nil {
		interfaces += ", g1"
	}
	for name, text := range map[string]string{"psk": secret,
		"ikepulse.yaml": fmt.Sprintf(gatewayConfig, gatewayAddr, interfaces, socket)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	g := &gateway{ns: s.gateway, path: filepath.Join(c.built, product), http: &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}}
	var err error
	if g.log, err = os.Create(filepath.Join(dir, "gateway.log")); err != nil {
		return nil, err
	}
	g.Process, err = s.gateway.Start(lab.Command{
		Path: g.path, Output: g.log,
		Args:    []string{"--instance", instance, "run", "--config", filepath.Join(dir, "ikepulse.yaml")},
		Prepare: func() error { return measure.Pin(c.gatewayCPU) },
	})
	if err != nil {
		return nil, errors.Join(err, g.log.Close())
	}
	return g, g.await()
}

// await waits for the first answer.
func (g *gateway) await() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		_, err := g.status()
		if err == nil {
			return nil
		}
		select {
		case <-g.Done():
			return g.failure(g.Wait())
		default:
		}
		if time.Now().After(deadline) {
			return g.failure(err)
		}
	}
}

// failure adds the log to what has happened.
func (g *gateway) failure(err error) error {
	text, _ := os.ReadFile(g.log.Name())
	return fmt.Errorf("the gateway: %w\n%s", err, text)
}

// stop ends it and takes its pins away, as a person does.
func (g *gateway) stop() error {
	g.http.CloseIdleConnections()
	err := g.Stop(patience)
	if err != nil {
		err = g.failure(err)
	}
	return errors.Join(err, g.detach(), g.log.Close())
}

func (g *gateway) detach() error {
	out := new(lab.Transcript)
	p, err := g.ns.Start(lab.Command{Path: g.path, Args: []string{"--instance", instance, "detach", "--all"}, Output: out})
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("detach: %w\n%s", err, out)
	}
	return nil
}

// status is what is read of the gateway's own.
type status struct {
	IKE struct {
		Up         int `json:"up"`
		Handshakes struct {
			HalfOpen  int `json:"half_open"`
			Waiting   int `json:"waiting"`
			WaitingMS int `json:"waiting_ms"`
		} `json:"handshakes"`
		LagMaxUS []int64           `json:"lag_max_us"`
		LagP99US []int64           `json:"lag_p99_us"`
		Counters map[string]uint64 `json:"counters"`
	} `json:"ike"`
}

func (g *gateway) status() (st status, err error) {
	a, err := g.http.Get("http://ikepulse/v1/status")
	if err != nil {
		return st, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return st, errors.New(a.Status)
	}
	return st, json.NewDecoder(a.Body).Decode(&st)
}
