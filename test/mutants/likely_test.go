package main

import (
	"slices"
	"strings"
	"testing"
)

func TestLikely(t *testing.T) {
	var l likely
	for _, test := range []string{"TestA", "TestB", "TestA", "TestC", "TestD", "TestE"} {
		l = l.with(test)
	}
	if want := (likely{"TestE", "TestD", "TestC", "TestA"}); !slices.Equal(l, want) {
		t.Errorf("%v, want %v", l, want)
	}
	if got, want := l.pattern(), "^(TestE|TestD|TestC|TestA)$"; got != want {
		t.Errorf("the pattern is %s, want %s", got, want)
	}
}

func TestBeginning(t *testing.T) {
	var b beginning
	for range 3 {
		if n, err := b.Write([]byte(strings.Repeat("x", beginningLength-1))); n != beginningLength-1 || err != nil {
			t.Errorf("%d written, %v", n, err)
		}
	}
	if len(b.first) != beginningLength {
		t.Errorf("%d bytes are kept", len(b.first))
	}
}
