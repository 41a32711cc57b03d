package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ikepulse/ikepulse/test/require"
)

// callerTask is set where the test's own binary runs as another user.
const callerTask = "IKEPULSE_CONTROL_CALLER"

func TestMain(m *testing.M) {
	switch path := os.Getenv("IKEPULSE_CONTROL_SOCKET"); os.Getenv(callerTask) {
	case "ask":
		os.Exit(ask(path))
	case "hold":
		os.Exit(hold(path))
	}
	os.Exit(m.Run())
}

// request is what a caller asks.
type request struct{ Method, Path, Body string }

// ask makes the requests that stdin has, and prints what the client says of
// each: "" where it was answered.
func ask(path string) int {
	var all []request
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	said := []string{}
	for _, r := range all {
		body, err := NewClient(path).do(context.Background(), r.Method, r.Path, []byte(r.Body))
		if err != nil {
			said = append(said, err.Error())
			continue
		}
		body.Close()
		said = append(said, "")
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		return 1
	}
	return 0
}

// hold opens connections, sends on each, says so, and keeps them until stdin
// ends.
func hold(path string) int {
	n, err := strconv.Atoi(os.Getenv("IKEPULSE_CONTROL_COUNT"))
	if err != nil {
		return 1
	}
	for range n {
		c, err := net.Dial("unix", path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer c.Close()
		_, _ = io.WriteString(c, os.Getenv("IKEPULSE_CONTROL_SEND")) // an error: turned away
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// callers start the test's binary as somebody else.
type callers struct{ t *testing.T }

func newCallers(t *testing.T) callers {
	t.Helper()
	require.Have(t, "root")
	return callers{t}
}

// command is the binary with a task, as somebody.
func (c callers) command(who syscall.Credential, task, path string) *exec.Cmd {
	cmd := exec.CommandContext(c.t.Context(), "/proc/self/exe") // by which others reach it, wherever it lies
	cmd.Env = []string{callerTask + "=" + task, "IKEPULSE_CONTROL_SOCKET=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &who}
	cmd.Stderr = os.Stderr
	return cmd
}

// ask has somebody make requests.
func (c callers) ask(who syscall.Credential, path string, all []request) (said []string) {
	c.t.Helper()
	in, err := json.Marshal(all)
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := c.command(who, "ask", path)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &said)
	}
	if err != nil || len(said) != len(all) {
		c.t.Fatalf("%v: %q", err, out)
	}
	return said
}

// hold has somebody open n connections, send on each, and hold them until let
// go.
func (c callers) hold(who syscall.Credential, path string, n int, send string) (letGo func()) {
	c.t.Helper()
	cmd := c.command(who, "hold", path)
	cmd.Env = append(cmd.Env, "IKEPULSE_CONTROL_COUNT="+strconv.Itoa(n), "IKEPULSE_CONTROL_SEND="+send)
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	line := make([]byte, len("held\n"))
	if _, err := io.ReadFull(out, line); err != nil || strings.TrimSpace(string(line)) != "held" {
		c.t.Errorf("%v: %q", err, line)
	}
	return func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			c.t.Error(err)
		}
	}
}
