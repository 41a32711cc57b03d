package halfopen

import (
	"fmt"
	"hash/maphash"
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

// TestFailuresOfOneEntry: who comes to an entry of another has failed for the first
// time, and does not prove anything in the other's name.
func TestFailuresOfOneEntry(t *testing.T) {
	f := NewFailures()
	entry := func(claimed string) *failure {
		return &f.pairs[maphash.Comparable(f.seed, pair{sourceOf(v4(1)), claimed})%failureEntries]
	}
	other := ""
	for n := 0; other == "" || entry(other) != entry("anna"); n++ {
		other = fmt.Sprint("peer ", n)
	}
	fail := func(who string, times int) (wait time.Duration) {
		for range times {
			wait = f.Failed(began, v4(1), who)
		}
		return wait
	}
	fail("anna", freeOfPair+1)
	f.Proved(v4(1), other)
	if got := fail("anna", 1); got != 2*time.Second {
		t.Errorf("anna, once the other has proved who he is: %v, want 2 s", got)
	}
	if got := fail(other, freeOfPair); got != 0 {
		t.Errorf("the other's free failures cost %v", got)
	}
	if got := fail(other, 1); got != time.Second {
		t.Errorf("the other's next: %v, want 1 s", got)
	}
	f.Proved(v4(1), other)
	if got := fail(other, freeOfPair); got != 0 {
		t.Errorf("the other's, once he has proved it: %v", got)
	}
}
