package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

// smallRun is a site one of whose daemons has a small tmpfs for its records, and
// others who fill it.
type smallRun struct {
	*site
	dir string // where everybody sees what is /run/ikepulse for that daemon
}

func newSmallRun(t *testing.T, kb int) *smallRun {
	t.Helper()
	return newSite(t).smallRun(kb)
}

// smallRun makes a tmpfs of so many kB.
func (s *site) smallRun(kb int) *smallRun {
	t := s.t
	t.Helper()
	r := &smallRun{s, filepath.Join(s.dir, "run")}
	if err := errors.Join(os.Mkdir(r.dir, 0o755), os.MkdirAll("/run/ikepulse", 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", r.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=755,size=%dk", kb)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(r.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return r
}

// inside is what a thread does whose process is to have the tmpfs at /run/ikepulse.
func (r *smallRun) inside() error {
	return errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount(r.dir, "/run/ikepulse", "", unix.MS_BIND, ""))
}

// doInside runs a command that sees the tmpfs.
func (r *smallRun) doInside(ns *lab.Namespace, args ...string) ran {
	r.t.Helper()
	var out lab.Transcript
	return r.end(r.start(ns, &out, r.inside, args...), &out)
}

// ask does so, and wants its exit code and all of this.
func (r *smallRun) ask(ns *lab.Namespace, code int, says []string, args ...string) string {
	r.t.Helper()
	got := r.doInside(ns, args...)
	if got.code != code {
		r.t.Errorf("%q: exit code %d, want %d: %s", args, got.code, code, got.out)
	}
	for _, text := range says {
		if !strings.Contains(got.out, text) {
			r.t.Errorf("%q does not say %q: %s", args, text, got.out)
		}
	}
	return got.out
}

// fill takes all that is left of the tmpfs, for a file that is not ours.
func (r *smallRun) fill() {
	r.t.Helper()
	f, err := os.Create(filepath.Join(r.dir, "another's"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		r.t.Fatal(err)
	}
}

func (r *smallRun) makeRoom() {
	r.t.Helper()
	if err := os.Remove(filepath.Join(r.dir, "another's")); err != nil {
		r.t.Fatal(err)
	}
}

// ends stops daemons whose log has errors.
func (r *smallRun) ends(daemons ...*daemon) {
	r.t.Helper()
	for _, d := range daemons {
		if err := d.Signal(unix.SIGTERM); err != nil {
			r.t.Fatal(err)
		}
		if got := r.end(d.Process, &d.log); got.code != 0 {
			r.t.Errorf("exit code %d: %s", got.code, got.out)
		}
	}
}

// manyConfig is a client's that can call as many different people.
func manyConfig(dir string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: {addresses: [10.7.0.2]}\nxdp: {capacity: 256, keepalive: pass}\ncontrol: {socket: %s/anna.sock}\n"+
		"defaults: {dpd: {delay: 1s, retransmit: {timeout: 300ms, base: 1.5, tries: 3}}}\nconnections:\n", dir)
	for i := range n {
		fmt.Fprintf(&b, "  c%d: {local: {auth: psk, id: u%[1]d@example.org}, remote: {auth: psk, id: vpn.example.org, addresses: [198.51.100.1]},"+
			" vips: [\"0.0.0.0\"], children: {net: {local_ts: [dynamic], remote_ts: [10.0.0.0/24]}}}\n", i)
	}
	return b.String() + "secrets:\n  - {id: vpn.example.org, psk_file: anna.psk}\n"
}

// fit is how many records there can be in what the first one allocates.
const fit = (64 << 10) / 1280

const fullTmpfs = "no space left on device: /run/ikepulse is full, and the records of the SAs are there"

// TestFullTmpfs: somebody fills the tmpfs of the records beside a gateway whose
// tunnels come until theirs are full, too. Those that are up live on, the next one
// is refused with a reason, and comes in when another goes or there is room.
func TestFullTmpfs(t *testing.T) {
	r := newSmallRun(t, 1024)
	anna := []string{"--instance", "anna"}
	config := r.write("gateway.yaml", strings.Replace(gatewayConfig, "{id: anna@example.org,", `{id: "*@example.org",`, 1))
	gw := r.runPrepared(r.Gateway, r.inside, "--config", config)
	client := r.run(r.Clients[0], append(anna, "--config", r.write("anna.yaml", manyConfig(r.site.dir, fit+2)))...)
	call := func(i int) ran { return r.do(r.Clients[0], append(anna, "initiate", fmt.Sprintf("c%d", i))...) }
	comes := func(i int) {
		t.Helper()
		if got := call(i); got.code != 0 {
			t.Fatalf("tunnel %d: %s", i, got.out)
		}
	}
	refused := func(i int) {
		t.Helper()
		if got := call(i); got.code != exitError || !strings.Contains(got.out, "TEMPORARY_FAILURE") {
			t.Errorf("one more: exit code %d: %s", got.code, got.out)
		}
		says := "new tunnels are refused: " + fullTmpfs
		r.ask(r.Gateway, exitDegraded, []string{"degraded\n", "problem    " + says}, "status")
		r.ask(r.Gateway, exitDegraded, []string{`"state": "degraded"`, `"` + says}, "status", "--json")
		if log := gw.log.String(); !strings.Contains(log, "storing the record: "+fullTmpfs) {
			t.Errorf("the log: %s", log)
		}
	}

	comes(0)
	r.fill()
	for i := 1; i < fit; i++ {
		comes(i)
	}
	r.ask(r.Gateway, 0, []string{"healthy\n", fmt.Sprintf("%d up", fit)}, "status")
	refused(fit)
	r.live(fit)

	r.ask(r.Gateway, 0, []string{"deleting 1 IKE SA\n"}, "terminate", "u3@example.org")
	r.await("its place is free", func() error {
		if out := r.ask(r.Gateway, 0, nil, "sas"); strings.Contains(out, "u3@example.org") {
			return errors.New(out)
		}
		return nil
	})
	r.ask(r.Gateway, 0, []string{"healthy\n"}, "status")
	comes(fit)
	refused(fit + 1)
	r.live(fit)
	r.makeRoom()
	r.ask(r.Gateway, 0, []string{"healthy\n"}, "status")
	comes(fit + 1)
	r.live(fit + 1)

	// Killed, and started on a tmpfs that is full again.
	r.fill()
	if err := gw.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	gw = r.runPrepared(r.Gateway, r.inside, "--config", config)
	if log := gw.log.String(); !strings.Contains(log, fmt.Sprintf("none survives a restart yet\" sas=%d", fit+1)) {
		t.Errorf("the log: %s", log)
	}
	r.await("the client has noticed", func() error {
		st, _ := r.status(r.Clients[0], anna...)
		if st.IKE.Up > 0 {
			return fmt.Errorf("%d up", st.IKE.Up)
		}
		return nil
	})
	comes(0)
	r.live(1)
	r.stop(gw, client)
	r.ask(r.Gateway, 0, nil, "detach", "--all")
	r.want(r.Clients[0], 0, nil, append(anna, "detach", "--all")...)
}

// live wants so many tunnels, each of which answers a probe from now on, and
// traffic.
func (r *smallRun) live(n int) {
	r.t.Helper()
	began := time.Now()
	r.ask(r.Gateway, 0, []string{fmt.Sprintf("probing %d IKE SA", n)}, "probe", "*")
	r.await("all have answered", func() error {
		var peers []gateway.Peer
		out := r.ask(r.Gateway, 0, nil, "peers", "--json")
		if err := json.Unmarshal([]byte(out), &peers); err != nil || len(peers) != n {
			return fmt.Errorf("%d of %d, %w", len(peers), n, err)
		}
		for _, p := range peers {
			if p.State != "established" || p.RoundTripMS == nil || *p.RoundTripMS > time.Since(began).Milliseconds() {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
	r.ping(3)
}

// TestFullTmpfsOfInitiator: who cannot store the record of a tunnel that he has
// called for says why, deletes it at its peer, and has it by himself once there is
// room.
func TestFullTmpfsOfInitiator(t *testing.T) {
	r := newSmallRun(t, 256)
	gw := r.run(r.Gateway, "--config", r.write("gateway.yaml", strings.Replace(gatewayConfig, "dpd: {delay: 2s", "dpd: {delay: 5m", 1)))
	client := r.runPrepared(r.Clients[0], r.inside, "--instance", "anna", "--config", r.write("anna.yaml", fmt.Sprintf(clientConfig, r.site.dir)))
	r.fill()
	r.ask(r.Clients[0], exitError, []string{"storing the record: " + fullTmpfs}, "--instance", "anna", "initiate", "office")
	r.ask(r.Clients[0], exitDegraded, []string{"degraded\n", "problem    new tunnels are refused: " + fullTmpfs}, "--instance", "anna", "status")
	r.await("its peer has no tunnel either", func() error {
		if st, _ := r.status(r.Gateway); st.IKE.Up > 0 || st.IKE.Counters["established"] == 0 || st.IKE.Counters["deleted"] != st.IKE.Counters["established"] {
			return fmt.Errorf("%d up; %v", st.IKE.Up, st.IKE.Counters)
		}
		return nil
	})
	r.makeRoom()
	r.await("the tunnel is up", func() error {
		if got := r.doInside(r.Clients[0], "--instance", "anna", "initiate", "office"); got.code != 0 {
			return errors.New(got.out)
		}
		return nil
	})
	r.ask(r.Clients[0], 0, []string{"healthy\n"}, "--instance", "anna", "status")
	r.ping(3)
	r.ends(gw, client)
	r.want(r.Gateway, 0, nil, "detach", "--all")
	r.ask(r.Clients[0], 0, nil, "--instance", "anna", "detach", "--all")
}

// TestStartOnFullTmpfs: a daemon for whose files there is no room says so, and
// leaves nothing; it starts when there is some.
func TestStartOnFullTmpfs(t *testing.T) {
	r := newSmallRun(t, 256)
	config := r.write("gateway.yaml", gatewayConfig)
	r.write("anna.psk", psk+"\n")
	r.fill()
	r.ask(r.Gateway, exitError, []string{"no space left on device"}, "run", "--config", config)
	if files, err := os.ReadDir(r.dir); err != nil || len(files) != 1 {
		t.Errorf("%v beside the other's file, %v", files, err)
	}
	r.makeRoom()
	gw := r.runPrepared(r.Gateway, r.inside, "--config", config)
	r.stop(gw)
	r.ask(r.Gateway, 0, nil, "detach", "--all")
}

// TestFullTmpfsAndStrongSwan: a strongSwan that calls is refused, and one that is
// called is left with no tunnel; with room there is one.
func TestFullTmpfsAndStrongSwan(t *testing.T) {
	b := newBranch(t, 0)
	r := b.smallRun(32) // for all but records
	b.open()
	gw := r.runPrepared(r.Gateway, r.inside, "--config", r.write("gateway.yaml", branchConfig))
	r.await("what we called for is deleted", func() error {
		sas, err := b.daemon.SAs()
		if log := b.daemon.Log(); err != nil || len(sas) > 0 || !strings.Contains(log, "received DELETE for IKE_SA hub") {
			return fmt.Errorf("%v, %w: %s", sas, err, log)
		}
		return nil
	})
	if err := b.daemon.Initiate("lan"); err == nil {
		t.Error("it has a tunnel")
	}
	if log := b.daemon.Log(); !strings.Contains(log, "TEMP_FAIL") {
		t.Errorf("strongSwan: %s", log)
	}
	r.ask(r.Gateway, exitDegraded, []string{"problem    new tunnels are refused: " + fullTmpfs}, "status")
	if err := unix.Mount("", r.dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, "size=256k"); err != nil {
		t.Fatal(err)
	}
	r.await("the tunnel is up", func() error {
		if got := r.doInside(r.Gateway, "initiate", "branch"); got.code != 0 {
			return errors.New(got.out)
		}
		return nil
	})
	r.ask(r.Gateway, 0, []string{"healthy\n", "1 up"}, "status")
	r.ends(gw)
	r.ask(r.Gateway, 0, nil, "detach", "--all")
}

// TestConfigurationReadOnly: a daemon starts and serves whose configuration is on a
// file system that is full, and read-only.
func TestConfigurationReadOnly(t *testing.T) {
	r := newSmallRun(t, 64)
	for name, text := range map[string]string{"gateway.yaml": gatewayConfig, "anna.psk": psk + "\n"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.fill()
	if err := unix.Mount("", r.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	gw := r.run(r.Gateway, "--config", filepath.Join(r.dir, "gateway.yaml"))
	client := r.run(r.Clients[0], "--instance", "anna", "--config", r.write("anna.yaml", fmt.Sprintf(clientConfig, r.site.dir)))
	r.want(r.Clients[0], 0, nil, "--instance", "anna", "initiate", "office")
	r.ping(3)
	r.want(r.Gateway, 0, []string{"healthy\n"}, "status")
	r.stop(gw, client)
	r.detached()
}
