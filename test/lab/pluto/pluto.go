// Package pluto runs libreswan's daemon in a lab's namespace, as a gateway or a
// peer with the kernel's ESP. libreswan is unpacked, not installed (see
// vm.Libreswan), and is no part of the product.
package pluto

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

const (
	// programs is where the daemon looks for its programs, whatever it is told.
	programs = "/usr/libexec"
	// startLimit is for an emulated machine; pluto starts in 0.3 s on another.
	startLimit = 60 * time.Second
	// commandLimit ends a whack that waits for what never comes.
	commandLimit = 60 * time.Second
)

// Daemon is a running pluto.
type Daemon struct {
	root, dir string
	process   *lab.Process
	output    *lab.Transcript
}

// Start starts pluto in a namespace and returns when it has loaded its
// connections. libreswan is unpacked in root. The daemon's files stand in dir, and
// it has a /run of its own. conf is ipsec.conf, secrets ipsec.secrets.
func Start(n *lab.Namespace, root, dir, conf, secrets string) (*Daemon, error) {
	d := &Daemon{root: root, dir: dir, output: new(lab.Transcript)}
	if err := d.prepare(conf, secrets); err != nil {
		return nil, err
	}
	var err error
	d.process, err = n.Start(lab.Command{
		Path: filepath.Join(programs, "ipsec/pluto"),
		Args: []string{"--nofork", "--stderrlog", "--no-dnssec", "--config", d.path("ipsec.conf"), "--secretsfile", d.path("ipsec.secrets"),
			"--ipsecdir", d.path("d"), "--nssdir", d.path("nss"), "--rundir", d.path("run")},
		Dir: dir, Output: d.output, Prepare: d.ownPlaces,
	})
	if err != nil {
		return nil, err
	}
	if err := d.awaitLoaded(); err != nil {
		return nil, errors.Join(err, d.process.Kill())
	}
	return d, nil
}

func (d *Daemon) path(name string) string { return filepath.Join(d.dir, name) }

func (d *Daemon) program(name string) string { return filepath.Join(d.root, programs, "ipsec", name) }

// prepare leaves the daemon's files, with a key store that is empty.
func (d *Daemon) prepare(conf, secrets string) error {
	for _, name := range []string{"d", "nss", "run"} {
		if err := os.MkdirAll(d.path(name), 0o700); err != nil {
			return err
		}
	}
	out, err := exec.Command("certutil", "-N", "-d", "sql:"+d.path("nss"), "--empty-password").CombinedOutput()
	if err != nil {
		return fmt.Errorf("certutil: %w\n%s", err, out)
	}
	return errors.Join(
		os.WriteFile(d.path("ipsec.conf"), []byte(conf), 0o600),
		os.WriteFile(d.path("ipsec.secrets"), []byte(secrets), 0o600))
}

// ownPlaces shows libreswan's programs where it looks for them, to it alone.
func (d *Daemon) ownPlaces() error {
	if err := lab.PrivateRun(); err != nil {
		return err
	}
	if err := unix.Mount(filepath.Join(d.root, programs), programs, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", programs, err)
	}
	return os.Mkdir("/run/pluto", 0o700)
}

// awaitLoaded waits for the program by which pluto loads its connections.
func (d *Daemon) awaitLoaded() error {
	timeout := time.After(startLimit)
	for !strings.Contains(d.Log(), "loading secrets") {
		select {
		case <-d.process.Done():
			return fmt.Errorf("pluto ended: %v\n%s", d.process.Wait(), d.Log())
		case <-timeout:
			return fmt.Errorf("not ready after %v\n%s", startLimit, d.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// Whack runs whack against the daemon and returns its output; the error repeats it.
func (d *Daemon) Whack(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, d.program("whack"), append([]string{"--rundir", d.path("run")}, args...)...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("whack %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Log returns what the daemon has logged so far.
func (d *Daemon) Log() string { return d.output.String() }

// Process is the daemon's process: Kill ends it without a word to the peer.
func (d *Daemon) Process() *lab.Process { return d.process }
