package main

import (
	"context"
	"regexp"
	"slices"
	"strings"
)

// likely are the tests that failed of late, the last first. They are run before all
// others: mutants that are beside each other often fail the same ones, and in some
// packages all tests take a minute.
type likely []string

const likelyTests = 4

// pattern is for -test.run.
func (l likely) pattern() string {
	return "^(" + strings.Join(l, "|") + ")$"
}

// with has a test in front.
func (l likely) with(test string) likely {
	rest := slices.DeleteFunc(slices.Clone(l), func(t string) bool { return t == test })
	l = append(likely{test}, rest...)
	return l[:min(len(l), likelyTests)]
}

var failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)

// verdict runs the tests that are likely to fail, and if they do not, all.
func (b *bench) verdict(ctx context.Context) (state, error) {
	if len(b.likely) > 0 {
		if s, _, err := b.test(ctx, b.likely.pattern()); err != nil || s != alive {
			return s, err
		}
	}
	s, _, err := b.test(ctx, "")
	if failed := failedTest.FindSubmatch(b.out.first); err == nil && s == killed && failed != nil {
		err = b.learn(ctx, string(failed[1]))
	}
	return s, err
}

// learn has a test run first from now on, if it passes by itself where nothing is
// changed.
func (b *bench) learn(ctx context.Context, test string) error {
	asItIs := *b.base
	s, _, err := asItIs.test(ctx, likely{test}.pattern())
	if err == nil && s == alive {
		b.likely = b.likely.with(test)
	}
	return err
}

// beginning keeps what is written first: a mutant may print without end.
type beginning struct{ first []byte }

const beginningLength = 64 << 10

func (b *beginning) Write(text []byte) (int, error) {
	b.first = append(b.first, text[:min(len(text), beginningLength-len(b.first))]...)
	return len(text), nil
}
