package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/control"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/test/lab"
)

// inner is the gateway's address behind the tunnels.
var inner = netip.MustParseAddr("10.0.0.1")

// names are the clients, in the order of the lab's.
var names = []string{"anna", "bert", "cora"}

// actor is one daemon in its namespace.
type actor struct {
	name    string
	ns      *lab.Namespace
	process *lab.Process
	control *control.Client
	log     *lab.Transcript
}

// stage is the network with the daemons on it.
type stage struct {
	lab     *lab.Lab
	net     *lab.Standard
	dir     string
	self    string // our own executable
	gateway *actor
	clients []*actor
	diary   *diary
}

// build makes the network and the configurations, and starts the daemons.
func build(ctx context.Context, self string, sabotage string) (_ *stage, err error) {
	s := &stage{lab: lab.New(), self: self, diary: newDiary()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lab.Close())
		}
	}()
	if s.net, err = s.lab.Standard(len(names)); err != nil {
		return nil, err
	}
	if sabotage == "nat" {
		if err := s.net.Masq.Remove(); err != nil {
			return nil, err
		}
		for i := range names { // the gateway can reach the clients only now
			to := netip.PrefixFrom(lab.ClientAddr(i), 32)
			if err := s.net.Gateway.Route(to, lab.NATAddr); err != nil {
				return nil, err
			}
		}
	}
	if err := s.net.Gateway.Address("lo", netip.PrefixFrom(inner, 32)); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "demo"); err != nil {
		return nil, err
	}
	return s, s.startAll(ctx)
}

func (s *stage) startAll(ctx context.Context) error {
	secrets := ""
	var configs []string
	for i, name := range names {
		file := name + ".psk"
		if err := s.write(file, secret()); err != nil {
			return err
		}
		secrets += fmt.Sprintf("  - {id: %s@example.org, psk_file: %s}\n", name, file)
		configs = append(configs, fmt.Sprintf(clientConfig, lab.ClientAddr(i), s.socket(name), name, lab.GatewayAddr, inner, file))
	}
	var err error
	gateway := fmt.Sprintf(gatewayConfig, lab.GatewayAddr, s.socket("gateway"), inner, secrets)
	if s.gateway, err = s.start(ctx, "gateway", s.net.Gateway, gateway); err != nil {
		return err
	}
	for i, name := range names {
		c, err := s.start(ctx, name, s.net.Clients[i], configs[i])
		if err != nil {
			return err
		}
		s.clients = append(s.clients, c)
	}
	return nil
}

func secret() string {
	b := make([]byte, 24)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (s *stage) socket(name string) string { return filepath.Join(s.dir, name+".sock") }
func (s *stage) write(name, content string) error {
	return os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600)
}

// start runs one daemon and waits until it answers; its events go into the
// diary.
func (s *stage) start(ctx context.Context, name string, ns *lab.Namespace, config string) (*actor, error) {
	if err := s.write(name+".yaml", config); err != nil {
		return nil, err
	}
	a := &actor{name: name, ns: ns, control: control.NewClient(s.socket(name)), log: &lab.Transcript{}}
	var err error
	a.process, err = ns.Start(lab.Command{Path: s.self, Output: a.log,
		Args: []string{"--instance", name, "run", "--config", filepath.Join(s.dir, name+".yaml")}})
	if err != nil {
		return nil, err
	}
	started := make(chan struct{})
	// Ends with the daemon, or with ctx.
	go func() {
		var once bool
		for ctx.Err() == nil {
			_ = a.control.Events(ctx, func() {
				if !once {
					close(started)
				}
				once = true
			}, func(m json.RawMessage) error { return s.diary.note(name, m) })
			if once {
				return
			}
			sleep(ctx, 50*time.Millisecond) // the socket is not there yet
		}
	}()
	select {
	case <-started:
		return a, nil
	case <-a.process.Done():
		return nil, fmt.Errorf("the daemon of %s ended:\n%s", name, a.log)
	case <-time.After(15 * time.Second):
		return nil, fmt.Errorf("the daemon of %s does not answer:\n%s", name, a.log)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ikepulse runs one of our own commands in a namespace.
func (s *stage) ikepulse(ns *lab.Namespace, out io.Writer, args ...string) error {
	p, err := ns.Start(lab.Command{Path: s.self, Args: args, Output: out})
	if err != nil {
		return err
	}
	return p.Wait()
}

// ping sends count echo requests from a client's virtual address to the
// gateway's inner one.
func (s *stage) ping(ctx context.Context, a *actor, from netip.Addr, count int, every time.Duration) (sent, received int, err error) {
	return a.ns.Ping(ctx, lab.Ping{Src: from, Dst: inner, Count: count, Interval: every, Timeout: 2 * time.Second})
}

// sas are the Child SAs that a daemon says it has.
func (a *actor) sas(ctx context.Context) (out []ike.SA, err error) {
	err = a.control.Get(ctx, "/v1/sas", &out)
	return out, err
}

// close ends the daemons, which say goodbye, and takes the network apart.
func (s *stage) close() error {
	var errs []error
	for _, a := range append(s.clients, s.gateway) {
		if a != nil {
			_ = a.process.Stop(6 * time.Second) // one of them has been killed
		}
	}
	errs = append(errs, s.lab.Close(), os.RemoveAll(s.dir))
	return errors.Join(errs...)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// The timers are short: what takes minutes on a gateway is to be seen here.
const gatewayConfig = `
listen: {addresses: [%s]}
control: {socket: %q}
xdp: {keepalive: answer, answer_interval: 1s, capacity: 1024}
defaults:
  proposals: [aes256gcm16-prfsha384-x25519]
  esp_proposals: [aes256gcm16-esn]
  dpd: {delay: 4s, retransmit: {timeout: 500ms, base: 1.8, tries: 3}, max_suppress: 10m}
connections:
  roadwarriors:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: "*@example.org"}
    pools: [office]
    children: {net: {local_ts: [%s/32], remote_ts: [dynamic]}}
pools:
  office: {addresses: 10.99.0.0/24}
secrets:
%s`

const clientConfig = `
listen: {addresses: [%s]}
control: {socket: %q}
xdp: {keepalive: pass, capacity: 64}
defaults:
  proposals: [aes256gcm16-prfsha384-x25519]
  esp_proposals: [aes256gcm16-esn]
  dpd: {mode: off}
  nat_keepalive: 1s
connections:
  office:
    local: {auth: psk, id: %s@example.org}
    remote: {auth: psk, id: vpn.example.org, addresses: [%s]}
    vips: ["0.0.0.0"]
    children: {net: {local_ts: [dynamic], remote_ts: [%s/32]}}
secrets:
  - {id: vpn.example.org, psk_file: %s}
`

// status is what the demo reads of a daemon's status.
type status struct {
	Sockets []struct {
		Keepalives uint64 `json:"keepalives"`
	} `json:"sockets"`
	Dataplane struct {
		Counters struct {
			NoTunnel uint64 `json:"no_tunnel"`
		} `json:"counters"`
	} `json:"dataplane"`
}

// keepalives is how many NAT keepalives, or answers to ours, have come to a
// daemon's sockets.
func (a *actor) keepalives(ctx context.Context) (n uint64, err error) {
	var s status
	err = a.control.Get(ctx, "/v1/status", &s)
	for _, socket := range s.Sockets {
		n += socket.Keepalives
	}
	return n, err
}

// noTunnel is how many packets a daemon's data plane had no tunnel for.
func (a *actor) noTunnel(ctx context.Context) (uint64, error) {
	var s status
	err := a.control.Get(ctx, "/v1/status", &s)
	return s.Dataplane.Counters.NoTunnel, err
}
