package config

import "strings"

// hintBudget bounds what the search for similar names may cost, in steps of
// distance: a file with thousands of mistakes among thousands of names gets
// its first hints and every problem.
const hintBudget = 20_000_000

// similar returns the candidate that word was probably meant to be, or "".
func (l *loader) similar(word string, candidates []string) string {
	if l.hints -= len(candidates); l.hints < 0 || len(word) > maxName {
		return ""
	}
	l.work += len(candidates)
	best, least := "", allowance(word)+1
	for _, c := range candidates {
		if d := l.distance(word, c, least); d < least {
			best, least = c, d
		}
	}
	if best != "" {
		return best
	}
	return abbreviated(word, candidates)
}

// allowance is how many slips a word of this length may hold: a short word
// with two is another word.
func allowance(word string) int {
	switch n := len(word); {
	case n <= 3:
		return 1
	case n <= 7:
		return 2
	}
	return 3
}

// abbreviated finds the one candidate that begins with word, or the other way
// round.
func abbreviated(word string, candidates []string) string {
	found := ""
	for _, c := range candidates {
		if min(len(word), len(c)) < 3 || !strings.HasPrefix(c, word) && !strings.HasPrefix(word, c) {
			continue
		}
		if found != "" {
			return ""
		}
		found = c
	}
	return found
}

// distance counts insertions, deletions, replacements and swaps of neighbours
// between a and b. It may stop at limit.
func (l *loader) distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	l.hints -= len(a) * len(b)
	l.work += len(a) * len(b)
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differ(a[i-1], b[j-1]))
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func differ(a, b byte) int {
	if a == b {
		return 0
	}
	return 1
}
