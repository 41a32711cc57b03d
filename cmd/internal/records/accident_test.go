package records

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/require"
)

// victim is the variable that makes a copy of this binary do what may end it.
const victim = "IKEPULSE_RECORDS_TEST_VICTIM"

func TestMain(m *testing.M) {
	act, argument, found := strings.Cut(os.Getenv(victim), " ")
	if !found {
		os.Exit(m.Run())
	}
	err := map[string]func(string) error{"fill": fill, "churn": churn}[act](argument)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func victimOf(act, argument string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victim+"="+act+" "+argument)
	return cmd
}

// TestFullFileSystem: a full tmpfs is an error that says so, and no signal.
func TestFullFileSystem(t *testing.T) {
	require.Have(t, "root")
	cmd := victimOf("fill", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// fill has a tmpfs for two chunks, and fills it.
func fill(dir string) error {
	err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=364k"))
	if err != nil {
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 192<<10), 0o600); err != nil {
		return err
	}
	s, _, err := Open(filepath.Join(dir, "records"), 1000)
	if err != nil {
		return err
	}
	stored := uint64(0)
	for err == nil {
		if err = s.Put(stored+1, sealed(stored+1, 907), 0); err == nil {
			stored++
		}
	}
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), dir+" is full") || stored != 2*(chunk/Size) {
		return fmt.Errorf("after %d records: %w", stored, err)
	}
	if err := s.Short(); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("what is short: %w", err)
	}
	// Those that are there go on, one that does not get the larger slot keeps
	// what it had, and who goes makes room for another.
	if err := s.Put(2, sealed(2, 1100), 0); err != nil {
		return fmt.Errorf("in place: %w", err)
	}
	if err := s.Put(3, sealed(3, 3000), 0); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("a larger one: %w", err)
	}
	if b := s.bytes(s.slot[3]); !bytes.Equal(b[head:head+907], sealed(3, 907)) || b[8] == 0 {
		return errors.New("what was stored before is gone")
	}
	if err := errors.Join(s.Delete(2), s.Put(stored+1, sealed(stored+1, 907), 0)); err != nil {
		return fmt.Errorf("in the place of one that has gone: %w", err)
	}
	if err := errors.Join(os.Remove(ballast), s.Short(), s.Put(3, sealed(3, 3000), 0)); err != nil {
		return fmt.Errorf("when there is room again: %w", err)
	}
	// Of whatever length a first record is, a request finds room beside it.
	const request = 96
	for n := Size - head - 2*request; n < Size; n += 8 {
		if err := errors.Join(s.Delete(4), s.Put(4, sealed(4, n), request)); err != nil {
			return fmt.Errorf("a record of %d bytes: %w", n, err)
		}
		f, err := os.Create(ballast)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if err := errors.Join(s.Put(4, sealed(4, n+request), 0), f.Close(), os.Remove(ballast)); err != nil {
			return fmt.Errorf("a record of %d bytes that grows: %w", n, err)
		}
	}
	// There may be no room from the beginning.
	for i := 0; os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 4096), 0o600) == nil; i++ {
	}
	if _, _, err := Open(filepath.Join(dir, "others"), 1000); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("a file of which not even the table has room: %w", err)
	}
	return nil
}

// TestKilled: whenever kill -9 comes, each record in the file is whole, and
// the only one of its SA.
func TestKilled(t *testing.T) {
	for i := range 100 {
		path := filepath.Join(t.TempDir(), "records")
		cmd := victimOf("churn", path)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it has begun
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i%20) * 131 * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		found := stored(t, path)
		if len(found) < 30 {
			t.Errorf("only %d records", len(found))
		}
		if _, left, err := Open(path, 10); err != nil || left != len(found) {
			t.Errorf("%d records are counted of %d, %v", left, len(found), err)
		}
	}
}

// churn stores records of growing and shrinking SAs until it is killed.
func churn(path string) error {
	s, _, err := Open(path, 40)
	if err != nil {
		return err
	}
	// Made before, so that most of the time goes into storing them.
	const kinds = 8
	var made [40][kinds][]byte
	for spi := range made {
		for k := range kinds {
			made[spi][k] = sealed(uint64(spi)+1, 32+(k+1)*4064/kinds)
		}
	}
	r := rand.New(rand.NewSource(time.Now().UnixNano()))
	for i := uint64(0); ; i++ {
		spi := i%40 + 1
		if i == 400 {
			fmt.Println("begun")
		}
		if i%160 < 40 { // they begin anew, and grow again
			err = s.Delete(spi)
		}
		if err = errors.Join(err, s.Put(spi, made[spi-1][r.Intn(kinds)], 0)); err != nil {
			return err
		}
	}
}
