package ike

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain fails a run that leaves goroutines behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leaked(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// leaked waits a while for the last ones to end.
func leaked() string {
	for range 100 {
		if runtime.NumGoroutine() <= 1 {
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}
