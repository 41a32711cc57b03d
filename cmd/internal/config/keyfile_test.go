package config

import (
	"slices"
	"strings"
	"testing"
)

// TestKeyFile: to a byte what the other side has, or a word about it.
func TestKeyFile(t *testing.T) {
	const (
		words  = "a key of words, 24 bytes"
		binary = "\x00 spaces and \r\n \xff bytes "
		mark   = "\xef\xbb\xbf"
		letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	)
	for _, c := range []struct {
		name, file, want string
		notes            []string // words of theirs
	}{
		{"text", words, words, nil},
		{"text and newline", words + "\n", words, nil},
		{"text and CRLF", words + "\r\n", words, nil},
		{"more than ASCII", "schlüssel für büro und außen\n", "schlüssel für büro und außen", nil},
		{"two newlines", words + "\n\n", words + "\n\n", []string{"more than one line"}},
		{"two lines", words + "\n" + words + "\n", words + "\n" + words + "\n", []string{"more than one line"}},
		{"a tab within", "a key\tof two columns\n", "a key\tof two columns\n", []string{"a tab"}},
		{"a byte order mark", mark + words + "\n", mark + words, []string{"byte order mark"}},
		{"double quotes", `"` + words + "\"\n", `"` + words + `"`, []string{"quotes"}},
		{"single quotes", "'" + words + "'\n", "'" + words + "'", []string{"quotes"}},
		{"quotes after a mark", mark + `"` + words + `"`, mark + `"` + words + `"`, []string{"byte order mark", "quotes"}},
		{"a quote at one end", `"` + words + "\n", `"` + words, nil},
		{"a blank at the end", words + " \n", words + " ", []string{"blank"}},
		{"a blank at the beginning", " " + words + "\n", " " + words, []string{"blank"}},
		{"a tab at the end", words + "\t\n", words + "\t\n", []string{"blank", "a tab"}},
		{"binary", binary, binary, nil},
		{"binary that ends like a line", binary + "\n", binary + "\n", nil},
		{"binary that ends like CRLF", binary + "\r\n", binary + "\r\n", nil},
		{"no UTF-8, no control character", "k\xfcche, garage und b\xfcro\n", "k\xfcche, garage und b\xfcro\n", nil},
		{"a control character above ASCII", "eine Zeile\u0085und die nächste\n", "eine Zeile\u0085und die nächste\n", nil},
		{"hex", "0x4142434445464748494a4b4c4d4e4f505152535455565758\n", letter[:24], nil},
		{"hex in capitals", "0X4142434445464748494A4B4C4D4E4F505152535455560A0A", letter[:22] + "\n\n", nil},
		{"base64", "0sQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\r\n", letter, nil},
		{"binary that begins like hex", "0x" + binary, "0x" + binary, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, map[string]string{"a.yaml": withSecret, "s/a.psk": c.file})
			cfg, ps := Load("a.yaml", checks)
			if ps != nil {
				t.Fatal(ps.Error())
			}
			if got := string(cfg.Secrets[0].PSK.Bytes()); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			notes := slices.DeleteFunc(cfg.Notes, func(p Problem) bool { return p.Key != pskFileKey })
			psk, alone, err := ReadPSK("s/a.psk")
			if err != nil || string(psk.Bytes()) != c.want {
				t.Errorf("alone it is %q (%v)", psk.Bytes(), err)
			}
			if len(notes) != len(c.notes) || len(alone) != len(c.notes) {
				t.Fatalf("notes %v and %q, want %q", notes, alone, c.notes)
			}
			for i, words := range c.notes {
				if !strings.Contains(notes[i].Text, words) || notes[i].Text != alone[i] || !strings.HasPrefix(alone[i], "s/a.psk: ") {
					t.Errorf("note %q, and alone %q, want %q", notes[i].Text, alone[i], words)
				}
			}
		})
	}
}

// TestMalformedKey: an encoding that cannot be read is no key, and no part of
// it is shown.
func TestMalformedKey(t *testing.T) {
	const noHex, noBase64 = "0x is followed by what is no hex", "0s is followed by what is no base64"
	for file, want := range map[string]string{
		"0x4142434445464748494a4b4c4d4e4f505152535455565\n":        noHex, // half a byte
		"0x41424344454647Zq494a4b4c4d4e4f50515253545556\n":         noHex,
		"0x4142434445464748494a4b4c4d4e4f50515253545556 \n":        noHex,
		"0x4142434445464748494a4b4c4d4e4f50515253545556\n\n":       noHex,
		"0sQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo\n":                  noBase64, // no padding
		"0sQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVp=\n":                 noBase64, // bits left over
		"0sQUJDREVGR0hJSktMTU5PUFFSU\n1RVVldYWVo=\n":               noBase64,
		"0smosis of a key through words\n":                         noBase64,
		"0sQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo= # of the office\n": noBase64,
	} {
		write(t, map[string]string{"a.yaml": withSecret, "s/a.psk": file})
		psk, _, got := readPSK("s/a.psk")
		if !strings.HasPrefix(got, want) || strings.Contains(got, "Zq") || psk.Bytes() != nil {
			t.Errorf("%q: %q, want %q", file, got, want)
		}
		if _, ps := Load("a.yaml", checks); len(ps) != 1 {
			t.Errorf("%q: %s", file, ps.Error())
		}
	}
}
