package test

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// A page is a text with blocks of what a person types and sees. In a block
// "# something" is what happens meanwhile, "$ something" is typed, and the rest
// is what comes of it.

// step is one thing that happens or is typed.
type step struct {
	happens bool
	text    string
	output  []string
	line    int // of the page, from 0
}

const fence = "```"

// otherBlock begins what a reader sees as a block, too.
var otherBlock = regexp.MustCompile(`^(    |\t|~~~)`)

// steps reads a page. A block that begins otherwise would show what nobody
// compares.
func steps(page string) (all []step, err error) {
	inside := false
	first := 0 // step of this block
	for i, line := range strings.Split(page, "\n") {
		text, isFence := strings.CutPrefix(line, fence)
		what, happens := strings.CutPrefix(line, "# ")
		typed, isTyped := strings.CutPrefix(line, "$ ")
		switch {
		case isFence && !inside && text != "":
			return nil, fmt.Errorf("line %d: a block of %s", i+1, text)
		case isFence:
			inside, first = !inside, len(all)
		case !inside && otherBlock.MatchString(line):
			return nil, fmt.Errorf("line %d: it would be shown as a block of another kind", i+1)
		case !inside:
		case happens:
			all = append(all, step{happens: true, text: what, line: i})
		case isTyped:
			all = append(all, step{text: typed, line: i})
		case len(all) == first || all[len(all)-1].happens:
			return nil, fmt.Errorf("line %d: nothing that is typed gives this: %s", i+1, line)
		default:
			s := &all[len(all)-1]
			s.output = append(s.output, line)
		}
	}
	if inside {
		err = errors.New("the last block has no end")
	}
	return all, err
}

// rewritten is the page with other texts and outputs of its steps.
func rewritten(page string, all []step) string {
	lines := strings.Split(page, "\n")
	var out []string
	next := 0
	for _, s := range all {
		prompt := "$ "
		if s.happens {
			prompt = "# "
		}
		out = append(out, lines[next:s.line]...)
		out = append(append(out, prompt+s.text), s.output...)
		for next = s.line + 1; !strings.HasPrefix(lines[next], fence) && !strings.HasPrefix(lines[next], "$ ") && !strings.HasPrefix(lines[next], "# "); next++ {
		}
	}
	return strings.Join(append(out, lines[next:]...), "\n")
}

// young ends where an age is called old.
const young = 5 * time.Second

func ageClass(d time.Duration) string {
	if d < young {
		return "YOUNG"
	}
	return "OLD"
}

var (
	saLine       = regexp.MustCompile(`^([0-9a-f]{8} +\d+) +(\d+|never) +(\d+|never) +(\d+|never)( .*)$`)
	peerLine     = regexp.MustCompile(`^( *\d+ +[01] +\d+) +(\d+|never)( +\d+) +(\d+|never)( \S+ \S+)$`)
	jsonNumber   = regexp.MustCompile(`^"\w+": (\d+),?$`)
	longSPI      = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
	instant      = regexp.MustCompile(`\b(\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d(\.\d+)?(Z|\+0000)?`)
	duration     = regexp.MustCompile(`\b(\d+d\d+h|\d+h\d+m|\d+m\d+s|\d+m|\d+(\.\d+)?(ms|µs|s))\b`)
	throughNAT   = regexp.MustCompile(regexp.QuoteMeta(lab.NATAddr.String()) + `:\d+`)
	probeOf      = regexp.MustCompile(`\b(probe|try) \d+/`)
	bareNumber   = regexp.MustCompile(`^\d[\d,]*(\.\d+)?$`)
	programTag   = regexp.MustCompile(`tag [0-9a-f]{16}`)
	spaces       = regexp.MustCompile(` {2,}|\t`)
	spiOfJSON    = regexp.MustCompile(`/0x[0-9a-f]{8}"`)
	programSizes = regexp.MustCompile(`\b\d+B\b`)
)

// plainLine is a line without what differs from run to run: names of what is
// there once, instants, and how much, but not how young an age is, nor whether a
// number is 0.
func plainLine(line string) string {
	if m := saLine.FindStringSubmatch(line); m != nil {
		line = fmt.Sprintf("%s %s %s %s%s", m[1], ageOf(m[2]), ageOf(m[3]), ageOf(m[4]), m[5])
	} else if m := peerLine.FindStringSubmatch(line); m != nil {
		line = fmt.Sprintf("%s %s%s %s%s", m[1], ageOf(m[2]), m[3], ageOf(m[4]), m[5])
	}
	line = strings.TrimSpace(line)
	if m := jsonNumber.FindStringSubmatchIndex(line); m != nil {
		return line[:m[2]] + numberClass(line[m[2]:m[3]], "1", "500", "4500") + line[m[3]:]
	}
	line = instant.ReplaceAllString(line, "INSTANT")
	line = programTag.ReplaceAllString(line, "tag TAG")
	line = longSPI.ReplaceAllString(line, "IKE-SPI")
	line = spiOfJSON.ReplaceAllString(line, `/0xSPI"`)
	line = spiWord.ReplaceAllString(line, "SPI")
	line = throughNAT.ReplaceAllString(line, "NAT:PORT")
	line = probeOf.ReplaceAllString(line, "$1 N/")
	line = programSizes.ReplaceAllString(line, "NB")
	line = duration.ReplaceAllStringFunc(line, spanClass)
	words := strings.Split(spaces.ReplaceAllString(line, "  "), " ")
	for i, w := range words {
		core := strings.TrimRight(strings.TrimLeft(w, "(+-"), ",;:)")
		if bareNumber.MatchString(core) {
			words[i] = strings.Replace(w, core, numberClass(core), 1)
		}
	}
	return strings.Join(words, " ")
}

// ageOf is an age in milliseconds.
func ageOf(ms string) string {
	n, err := strconv.Atoi(ms)
	if err != nil {
		return ms
	}
	return ageClass(time.Duration(n) * time.Millisecond)
}

// spanClass is an age as the product prints it.
func spanClass(text string) string {
	d, err := time.ParseDuration(text)
	if err != nil { // days
		d = young
	}
	return ageClass(d)
}

// numberClass tells 0, and what else says something, from the other numbers.
func numberClass(text string, telling ...string) string {
	switch {
	case slices.Contains(telling, text):
		return text
	case strings.Trim(text, "0.") == "":
		return "0"
	}
	return "N"
}

// TestPageSteps: what a page shows is what is typed and what comes of it; it
// cannot show what nobody compares.
func TestPageSteps(t *testing.T) {
	const page = "text\n```\n# it rains\n$ look\nwet\n\n$ wait\n```\nmore\n```\n$ look\ndry\n```\n"
	all, err := steps(page)
	want := []step{{true, "it rains", nil, 2}, {false, "look", []string{"wet", ""}, 3}, {false, "wait", nil, 6}, {false, "look", []string{"dry"}, 10}}
	if err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%+v, %v", all, err)
	}
	if same := rewritten(page, all); same != page {
		t.Errorf("rewritten with its own: %q", same)
	}
	all[1].output, all[2].text, all[2].output, all[3].output = nil, "wait 1", []string{"a", "b"}, []string{"wet"}
	if got, want := rewritten(page, all), "text\n```\n# it rains\n$ look\n$ wait 1\na\nb\n```\nmore\n```\n$ look\nwet\n```\n"; got != want {
		t.Errorf("rewritten: %q, want %q", got, want)
	}
	for page, says := range map[string]string{
		"```\nout of nothing\n```\n":            "line 2: nothing that is typed gives this: out of nothing",
		"```\n$ look\n```\n```\nno more\n```\n": "line 5: nothing that is typed gives this: no more",
		"```\n# it rains\nwet\n```\n":           "line 3: nothing that is typed gives this: wet",
		"```sh\n$ look\n```\n":                  "line 1: a block of sh",
		"text\n\n    $ look\n":                  "line 3: it would be shown as a block",
		"text\n\n\t$ look\n":                    "line 3: it would be shown as a block",
		"~~~\n$ look\n~~~\n":                    "line 1: it would be shown as a block",
		"```\n$ look\n":                         "has no end",
	} {
		if _, err := steps(page); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %s", page, err, says)
		}
	}
}

// TestPlainLine: what must be the same from run to run, and what need not.
func TestPlainLine(t *testing.T) {
	for _, pair := range [][2]string{ // alike
		{"3 up   0 dying of 1,024 (+6 -1)", "4 up   0 dying of 512 (+2 -2)"},
		{"anna  198.51.100.254:1185   62800466  2m09s", "anna  198.51.100.254:61877  930005f2  3d02h"},
		{"62800466    1126      10120      never      never          -", "930005f2       1       6000      never      never          -"},
		{"     1      1         30        748          2       2796 a:1 b:2", "     2      1          3          0          1          9 a:1 b:2"},
		{`        "seen": 16792907,`, `        "seen": 7,`},
		{"probe 3/6, pid 40", "probe 1/6, pid 4121"},
		{"0.998", "2.5"},
	} {
		if a, b := plainLine(pair[0]), plainLine(pair[1]); a != b {
			t.Errorf("%q and %q differ", a, b)
		}
	}
	for _, pair := range [][2]string{ // not
		{"3 up   0 dying", "3 up   1 dying"},
		{"esp 4s", "esp 5s"},
		{"62800466    1126       4999       9999      never          -", "62800466    1126       5000       9999      never          -"},
		{"62800466    1126       9999       9999      never          -", "62800466    1126       9999      never      never          -"},
		{"     1      1         30        748          2       2796 a:1 b:2", "     1      1         30       7480          2       2796 a:1 b:2"},
		{`"spi": 0,`, `"spi": 2466252274,`},
		{`"flags": 1,`, `"flags": 2,`},
		{"esp_udp_known  pass", "esp_udp_moved  pass"},
		{"198.51.100.254:4500", "198.51.100.1:4500"},
		{"probe 3/6", "probe 3/5"},
		{"0.000", "0.001"},
	} {
		if a, b := plainLine(pair[0]), plainLine(pair[1]); a == b {
			t.Errorf("%q and %q are both %q", pair[0], pair[1], a)
		}
	}
}
