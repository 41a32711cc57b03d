package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
)

// die ends a process as kill -9 does.
func die() error {
	fmt.Println("dying")
	return unix.Kill(os.Getpid(), unix.SIGKILL)
}

// handOverAndDie is killed after so many steps of taking over.
func handOverAndDie(after int) error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	f, err := look(base+"/default", cookie)
	if err != nil {
		return err
	}
	_, err = build(f.dir, own(Options{Capacity: 5000}), cookie, func(dir string) error {
		next, err := ebpf.LoadPinnedProgram(programPin(underConstruction(dir)), nil)
		if err != nil {
			return err
		}
		for _, s := range f.handOverSteps(dir, next)[:after] {
			if err := s.do(); err != nil {
				return err
			}
		}
		return die()
	})
	return err
}

// swapAndDie is killed when all of it is done but the pin of the program.
func swapAndDie() error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	f, err := look(base+"/default", cookie)
	if err != nil {
		return err
	}
	wanted := Options{Keepalive: "absorb"}.over(f.meta)
	next, err := f.reload(wanted)
	if err == nil {
		err = errors.Join(next.Pin(nextPin(f.dir)), f.moveLinks(next), wanted.Write(f.Meta))
	}
	return errors.Join(err, die())
}

// buildAndDie is killed when all is built that is to be attached.
func buildAndDie() error {
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	unlock, err := lock(base+"/default", true)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = build(base+"/default", small(), cookie, func(string) error { return die() })
	return err
}

func init() {
	children["build"] = buildAndDie
	for after := range 4 {
		children[fmt.Sprint("hand over ", after)] = func() error { return handOverAndDie(after) }
	}
	children["swap"] = swapAndDie
}

// Wherever a process is killed that replaces program or maps: no interface is
// without a program, not for a moment, and after the next process the one that
// is pinned runs, with what meta says, in the link that was there.
func TestKilledWhileReplacing(t *testing.T) {
	for role, keepalive := range map[string]string{
		"hand over 0": "answer", "hand over 1": "answer", "hand over 2": "answer", "hand over 3": "answer", "swap": "absorb",
	} {
		t.Run(role, func(t *testing.T) {
			privileged(t)
			veth(t, "vtorn", 0)
			i := ensure(t, small())
			t.Cleanup(func() { _ = Purge(i.Dir()) })
			before := attach(t, i, "vtorn")
			if err := os.Symlink("a record", tagsPin(i.Dir(), "vtorn")); err != nil {
				t.Fatal(err)
			}
			if err := i.Close(); err != nil {
				t.Fatal(err)
			}
			cmd, _ := child(t, role)
			if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("the child ended with %v", err)
			}
			if programOn(t, "vtorn") == 0 {
				t.Error("no program is on the interface")
			}
			i = ensure(t, Options{})
			if got := i.Maps().Meta.Keepalive; got != keepalive {
				t.Errorf("keepalive is %s", got)
			}
			if mode := variable(t, i.Dir(), bpf.VarKeepaliveMode); (mode == uint32(bpf.KeepaliveAnswer)) != (keepalive == "answer") {
				t.Errorf("the pinned program has keepalive mode %d, meta says %s", mode, keepalive)
			}
			now := only(t, i)
			if now.LinkID != before.LinkID || !now.Since.Equal(before.Since) || now.Gone {
				t.Errorf("%+v, was %+v", now, before)
			}
			info, err := i.program.Info()
			if err != nil {
				t.Fatal(err)
			}
			pinned, _ := info.ID()
			if on := programOn(t, "vtorn"); on != uint32(pinned) || on != now.ProgramID {
				t.Errorf("program %d is on the interface, %d is pinned", on, pinned)
			}
			if err := os.Remove(tagsPin(i.Dir(), "vtorn")); err != nil {
				t.Error(err)
			}
			if pins := pinsBelow(t, base); len(pins) != 1+len(allPins(t))+1 {
				t.Errorf("pins: %q", pins)
			}
			remove(t, i)
		})
	}
}

// Where it is on no interface, too, the program is the one that meta tells of.
func TestKilledWhileReplacingUnattached(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	t.Cleanup(func() { _ = Purge(i.Dir()) })
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	cmd, _ := child(t, "swap")
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended with %v", err)
	}
	i = ensure(t, Options{})
	if mode := variable(t, i.Dir(), bpf.VarKeepaliveMode); mode != uint32(bpf.KeepaliveAbsorb) || i.Maps().Meta.Keepalive != "absorb" {
		t.Errorf("the pinned program has keepalive mode %d, meta says %s", mode, i.Maps().Meta.Keepalive)
	}
	remove(t, i)
}

// killed runs a child that is killed.
func killed(t *testing.T, role string) {
	t.Helper()
	cmd, _ := child(t, role)
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended with %v", err)
	}
}

// Whoever only looks, or detaches, meets what a killed process has left, too:
// maps that nobody uses, and links that are not where they should be.
func TestOpenAfterAKill(t *testing.T) {
	privileged(t)
	killed(t, "build")
	if pins := pinsBelow(t, base); len(pins) == 0 {
		t.Fatal("the child was killed too early")
	}
	if _, err := Open(""); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("Open: %v", err)
	}
	if _, err := os.Stat(base); err == nil {
		t.Errorf("left: %q", pinsBelow(t, base))
	}

	veth(t, "vtorn", 0)
	i := ensure(t, small())
	t.Cleanup(func() { _ = Purge(i.Dir()) })
	before := attach(t, i, "vtorn")
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	killed(t, "hand over 2")
	i, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	if now := only(t, i); now.LinkID != before.LinkID || now.Gone {
		t.Errorf("%+v, was %+v", now, before)
	}
	if err := i.Detach("vtorn"); err != nil || programOn(t, "vtorn") != 0 {
		t.Errorf("program %d is on it: %v", programOn(t, "vtorn"), err)
	}
	remove(t, i)
}

// What the options do not say stays as it is, also where the maps are replaced.
func TestOtherMapsKeepTheSettings(t *testing.T) {
	privileged(t)
	first := ensure(t, Options{Capacity: 100, Keepalive: "absorb", AnswerInterval: 7 * time.Second, AnswerBudget: 300, NATTPort: 4501})
	was := first.Maps().Meta
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	i := ensure(t, Options{Capacity: 5000})
	now := i.Maps().Meta
	now.Loaded, now.Jiffy = was.Loaded, was.Jiffy
	if was.Capacity = 5000; now != was {
		t.Errorf("%+v, was %+v", now, was)
	}
	// A budget that nobody asked for is one for the new capacity.
	remove(t, i)
	first = ensure(t, Options{Capacity: 100})
	defer first.Close()
	i = ensure(t, Options{Capacity: 1 << 16})
	if meta := i.Maps().Meta; meta.AnswerBudget != defaultBudget(meta) || meta.AnswerBudget == first.Maps().Meta.AnswerBudget {
		t.Errorf("%+v", meta)
	}
	remove(t, i)
}
