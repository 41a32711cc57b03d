package config

import (
	"bytes"
	"slices"
	"strings"
)

// foreign reports whether a file has none of a configuration's keys at its top, so
// that it is another's that an include has hit: a key, a list of passwords. What
// is wrong with such a file is not told, since that would show what is in it.
func foreign(src []byte) bool {
	names := firstKeys.names()
	top := -1 // the indentation of the first line that says something
	for line := range bytes.Lines(src) {
		text := bytes.TrimLeft(line, " \t")
		if begin := bytes.TrimSpace(text); len(begin) == 0 || strings.IndexByte("#%", begin[0]) >= 0 || string(begin) == "---" {
			continue
		}
		if indent := len(line) - len(text); top < 0 {
			top = indent
		} else if indent != top {
			continue
		}
		name, value, _ := bytes.Cut(bytes.TrimLeft(text, `{"' `), []byte(":"))
		apart := len(value) > 0 && strings.IndexByte(" \t\r\n", value[0]) >= 0
		if apart && slices.Contains(names, string(bytes.TrimRight(name, `"' `))) {
			return false
		}
	}
	return top >= 0
}
