// Package charon runs strongSwan's daemon in a lab's namespace, as the peer of
// live tests. It needs Debian's strongswan packages (see require's word
// "strongswan"), and is no part of the product.
package charon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

const (
	daemonPath = "/usr/lib/ipsec/charon"
	// startLimit is for a machine under load; charon starts in 0.1 s.
	startLimit = 30 * time.Second
	// commandLimit ends a swanctl that waits for what never comes.
	commandLimit = 60 * time.Second
)

// base is strongswan.conf: %[1]s is the daemon's folder, %[2]s additional
// settings of the section charon. ESP is done in user space over a TUN device,
// so that the kernel needs none. swanctl loads few plugins, or it is slow.
const base = `charon {
	load_modular = no
	load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey gmp curve25519 hmac kdf aes sha1 sha2 gcm chapoly drbg kernel-libipsec kernel-netlink socket-default vici updown eap-identity eap-mschapv2 eap-md5
	plugins {
		vici {
			socket = unix://%[1]s/vici.sock
		}
	}
	filelog {
		log {
			path = %[1]s/charon.log
			time_format = %%H:%%M:%%S
			default = 1
			ike = 2
			flush_line = yes
		}
	}
%[2]s
}
swanctl {
	load = random openssl pem pkcs1 x509 pubkey
}
`

// Daemon is a running charon.
type Daemon struct {
	dir     string
	process *lab.Process
	output  *lab.Transcript
}

// Start starts charon in a namespace, with its files in dir and a /run of its
// own, and returns when it can be steered. settings are further lines of the
// section charon of strongswan.conf, such as "keep_alive = 2s", each setting
// on a line of its own. dir may be one in which an earlier daemon was killed.
func Start(n *lab.Namespace, dir, settings string) (*Daemon, error) {
	d := &Daemon{dir: dir, output: new(lab.Transcript)}
	if err := os.MkdirAll(filepath.Join(dir, "swanctl"), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.path("strongswan.conf"), fmt.Appendf(nil, base, dir, settings), 0o600); err != nil {
		return nil, err
	}
	var err error
	d.process, err = n.Start(lab.Command{
		Path: daemonPath, Env: d.env(), Dir: dir, Output: d.output, Prepare: lab.PrivateRun,
	})
	if err != nil {
		return nil, err
	}
	if err := d.awaitControl(); err != nil {
		return nil, errors.Join(err, d.process.Kill())
	}
	return d, nil
}

func (d *Daemon) path(name string) string { return filepath.Join(d.dir, name) }

func (d *Daemon) env() []string {
	return append(os.Environ(),
		"STRONGSWAN_CONF="+d.path("strongswan.conf"),
		"SWANCTL_DIR="+d.path("swanctl"))
}

// awaitControl waits for the control socket; one that an earlier daemon left
// refuses connections.
func (d *Daemon) awaitControl() error {
	timeout := time.After(startLimit)
	for {
		conn, err := net.Dial("unix", d.path("vici.sock"))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-d.process.Done():
			return fmt.Errorf("charon ended: %v\n%s%s", d.process.Wait(), d.output, d.Log())
		case <-timeout:
			return fmt.Errorf("no control socket after %v: %w\n%s", startLimit, err, d.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Load replaces swanctl.conf, each setting on a line of its own, and makes the
// daemon take over its connections, pools and secrets.
func (d *Daemon) Load(swanctl string) error {
	if err := os.WriteFile(d.path("swanctl/swanctl.conf"), []byte(swanctl), 0o600); err != nil {
		return err
	}
	_, err := d.Swanctl("--load-all", "--noprompt")
	return err
}

// Initiate brings up a child and returns when it is up or has failed.
func (d *Daemon) Initiate(child string) error {
	_, err := d.Swanctl("--initiate", "--child", child)
	return err
}

// Terminate deletes the SAs of a connection and returns when the peer has
// answered.
func (d *Daemon) Terminate(connection string) error {
	_, err := d.Swanctl("--terminate", "--ike", connection)
	return err
}

// Swanctl runs swanctl against the daemon and returns its output; the error
// repeats it.
func (d *Daemon) Swanctl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	args = append(args, "--uri", "unix://"+d.path("vici.sock"))
	cmd := exec.CommandContext(ctx, "swanctl", args...)
	cmd.Env = d.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("swanctl %s: %w\n%s", args[0], err, out)
	}
	return string(out), nil
}

// Log returns what the daemon has logged so far, earlier daemons in the same
// folder included.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.LogPath())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// LogPath is the log file.
func (d *Daemon) LogPath() string { return d.path("charon.log") }

// Process is the daemon's process: Kill ends it without a word to the peer.
func (d *Daemon) Process() *lab.Process { return d.process }

// Stop ends the daemon, which deletes its SAs first.
func (d *Daemon) Stop() error { return d.process.Stop(startLimit) }
