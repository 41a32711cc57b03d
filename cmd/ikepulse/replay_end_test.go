package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/require"
)

// TestReplayHead: whoever reads but the beginning ends it, without a word.
func TestReplayHead(t *testing.T) {
	require.Have(t, "root", "bpf")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := itself(t, "replay", traceFile(t, long()))
	cmd.Stdout = w
	_, errs, _ := ended(cmd)
	w.Close()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != unix.SIGPIPE || errs != "" {
		t.Errorf("%v, said %q", cmd.ProcessState, errs)
	}
}

// TestReplayInterrupted: Ctrl-C while it still waits for the capture.
func TestReplayInterrupted(t *testing.T) {
	require.Have(t, "root", "bpf")
	cmd := itself(t, "replay", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// More than a pipe holds: when it is written, somebody reads.
	if _, err := in.Write(append(long(), make([]byte, 1<<20)...)); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != exitError || out.Len() > 0 || errs.String() != "ikepulse: interrupted\n" {
		t.Errorf("%v: printed %d bytes, said %q", err, out.Len(), &errs)
	}
}

// watched is a stdout that does something with its first write.
type watched struct {
	bytes.Buffer
	writes int
	first  func() error
}

func (w *watched) Write(b []byte) (int, error) {
	if w.writes++; w.writes == 1 {
		if err := w.first(); err != nil {
			return 0, err
		}
	}
	return w.Buffer.Write(b)
}

// TestReplayEnds: however it ends, what was run is told in few writes, and
// nothing of ours stays in the kernel.
func TestReplayEnds(t *testing.T) {
	require.Have(t, "root", "bpf")
	whole := long()
	for name, c := range map[string]struct {
		capture []byte
		during  func(cancel context.CancelFunc) error
		says    string
		most    int // frames that are told of
		least   int
	}{
		"well":        {whole, func(context.CancelFunc) error { return nil }, "", longFrames, longFrames},
		"truncated":   {whole[:len(whole)-1], func(context.CancelFunc) error { return nil }, "the file ends in the middle", longFrames - 1, longFrames - 1},
		"interrupted": {whole, func(cancel context.CancelFunc) error { cancel(); return nil }, "interrupted", longFrames / 2, 1},
		"disk full":   {whole, func(context.CancelFunc) error { return unix.ENOSPC }, unix.ENOSPC.Error(), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			file := traceFile(t, c.capture)
			before, pinned := ourObjects(t), bpffs(t)
			var during []object
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &watched{first: func() error {
				during = heldSince(t, before)
				return c.during(cancel)
			}}
			var errs bytes.Buffer
			code := ikepulse(ctx, env{out, &errs, false}, []string{"ikepulse", "replay", file})
			after := heldSince(t, before) // at once, or the collector closes what was forgotten

			said := strings.TrimSuffix(errs.String(), "\n")
			if failed := c.says != ""; (code != 0) != failed || (said != "") != failed || !strings.HasSuffix(said, c.says) || strings.Contains(said, "\n") {
				t.Errorf("exit code %d, said %q", code, said)
			}
			toldOf(t, out, c.least, c.most)
			if len(during) < 10 {
				t.Errorf("while it ran there were %v: is that the program and its maps?", during)
			}
			if len(after) > 0 {
				t.Errorf("this process still holds %v", after)
			}
			gone(t, during)
			if now := bpffs(t); !slices.Equal(pinned, now) {
				t.Errorf("pinned: %q, and %q before", now, pinned)
			}
		})
	}
}

// toldOf wants lines and a summary of so many frames, a write a buffer.
func toldOf(t *testing.T, out *watched, least, most int) {
	t.Helper()
	if most == 0 {
		if out.Len() > 0 {
			t.Errorf("printed %d bytes", out.Len())
		}
		return
	}
	got, lines := summaryOf(t, out.String())
	if lines != got.Frames || lines < least || lines > most || out.writes > 1+out.Len()/(1<<16) {
		t.Errorf("%d lines of %d frames, want %d to %d; %d bytes in %d writes", lines, got.Frames, least, most, out.Len(), out.writes)
	}
}

// object is a program or a map of the kernel's.
type object struct {
	kind string
	id   uint32
}

// ourObjects are those that this process holds.
func ourObjects(t *testing.T) (all []object) {
	t.Helper()
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		text, _ := os.ReadFile(info) // the one of the folder itself is gone
		for line := range strings.Lines(string(text)) {
			var id uint32
			for _, kind := range []string{"prog_id", "map_id"} {
				if _, err := fmt.Sscanf(line, kind+": %d", &id); err == nil {
					all = append(all, object{kind, id})
				}
			}
		}
	}
	return all
}

// heldSince are those that it did not hold before.
func heldSince(t *testing.T, before []object) []object {
	t.Helper()
	return slices.DeleteFunc(ourObjects(t), func(o object) bool { return slices.Contains(before, o) })
}

// gone waits until none of them is: the kernel takes a moment.
func gone(t *testing.T, all []object) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		all = slices.DeleteFunc(all, func(o object) bool {
			var err error
			if o.kind == "prog_id" {
				err = closed(ebpf.NewProgramFromID(ebpf.ProgramID(o.id)))
			} else {
				err = closed(ebpf.NewMapFromID(ebpf.MapID(o.id)))
			}
			return errors.Is(err, fs.ErrNotExist)
		})
		if len(all) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", all)
		}
	}
}

func closed(c io.Closer, err error) error {
	if err != nil {
		return err
	}
	return c.Close()
}

// bpffs is all that the BPF file system has, which these tests have to
// themselves.
func bpffs(t *testing.T) (all []string) {
	t.Helper()
	if !isolated {
		t.Fatal("this process has no namespaces of its own")
	}
	err := filepath.WalkDir("/sys/fs/bpf", func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

// TestReplayPiped: what comes through a pipe is kept up to a limit, and not at
// all if it is no capture: its writer need not end for that.
func TestReplayPiped(t *testing.T) {
	const most = 1 << 20
	for name, c := range map[string]struct {
		begins []byte
		want   string
	}{
		"no capture": {make([]byte, 4), "begins with 00 00 00 00"},
		"too much":   {long(), "more than 1 MB"},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			go func() { // ends when r is closed
				_, err := w.Write(c.begins)
				for err == nil {
					_, err = w.Write(make([]byte, 1<<16))
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := rereadable(ctx, r, most); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
