package halfopen

import (
	"testing"
	"time"
)

func TestFailures(t *testing.T) {
	f, now := NewFailures(), began
	want := func(what string, got, want time.Duration) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	for n := range freeOfPair {
		want("a free failure", f.Failed(now, v4(1), "anna"), 0)
		_ = n
	}
	for _, wait := range []time.Duration{1, 2, 4, 8, 16, 16, 16} {
		want("anna from there", f.Failed(now, v4(1), "anna"), wait*time.Second)
	}
	want("anna from elsewhere", f.Failed(now, v4(2), "anna"), 0)
	want("another from there", f.Failed(now, v4(1), "bert"), 0)
	for n := range freeOfSource {
		f.Failed(now, v4(3), string(rune('a'+n)))
	}
	want("one too many of a source", f.Failed(now, v4(3), "zoe"), time.Second)
	want("the next", f.Failed(now, v4(3), "yves"), 2*time.Second)
	f.Proved(v4(1), "anna")
	want("once she has proved it", f.Failed(now, v4(1), "anna"), 0)
	for range 10 {
		f.Failed(now, v4(4), "carl")
	}
	f.Proved(v4(4), "dora")
	f.Proved(v4(5), "carl")
	now = now.Add(forgetAfter - 1)
	want("before it is forgotten", f.Failed(now, v4(4), "carl"), 16*time.Second)
	now = now.Add(forgetAfter)
	want("after it", f.Failed(now, v4(4), "carl"), 0)
}
