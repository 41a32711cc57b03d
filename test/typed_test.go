package test

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// shell runs what is typed at a terminal in a namespace, and remembers what a
// person's shell would.
type shell struct {
	t      *testing.T
	ns     *lab.Namespace
	dir    string
	path   string // before this process's PATH
	memory []string
}

// setting is a line that a shell remembers: a variable, or a function.
var setting = regexp.MustCompile(`^\w+(=|\(\))`)

func (s *shell) typed(line string) (output []string) {
	s.t.Helper()
	master, slave, err := terminal()
	if err != nil {
		s.t.Fatal(err)
	}
	defer master.Close()
	p, err := s.ns.Start(lab.Command{Path: "/bin/sh", Args: []string{"-c", strings.Join(append(s.memory, line), "\n")}, Dir: s.dir, Output: slave,
		Env: append(os.Environ(), "PATH="+s.path+":"+os.Getenv("PATH"), "TZ=UTC")})
	err = errors.Join(err, slave.Close())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := master.SetReadDeadline(time.Now().Add(limit)); err != nil {
		s.t.Fatal(err)
	}
	var text []byte
	for buf := make([]byte, 1<<16); err == nil; { // until nobody holds the other end
		var n int
		n, err = master.Read(buf)
		text = append(text, buf[:n]...)
	}
	if !errors.Is(err, unix.EIO) {
		s.t.Fatalf("$ %s\n%s\n%v", line, text, err)
	}
	_ = p.Wait() // the exit code of the last command, which need not be 0
	if setting.MatchString(line) {
		s.memory = append(s.memory, line)
	}
	all := strings.TrimRight(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	if all == "" {
		return nil
	}
	return strings.Split(all, "\n")
}

// terminal opens both ends of one: a command prints other things to a person
// than into a pipe.
func terminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	number := 0
	raw, err := master.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
			if failed == nil {
				number, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
			}
		})
		err = errors.Join(err, failed)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}
