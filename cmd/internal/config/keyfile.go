package config

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"unicode"
	"unicode/utf8"
)

// keyOf returns the key that a file's bytes are, and what an operator may not
// have meant. Text loses the one line end that an editor or echo leaves, and
// may be hex or base64, as swanctl has them; of a binary key every byte counts.
// What it returns may share raw's memory.
func keyOf(raw []byte) (key []byte, notes []string, complaint string) {
	text := withoutNewline(raw)
	if !utf8.Valid(text) || bytes.ContainsFunc(text, strangeToText) {
		return raw, nil, ""
	}
	binary := bytes.ContainsFunc(text, unicode.IsControl)
	switch encoding := bytes.ToLower(text[:min(2, len(text))]); {
	case string(encoding) == "0x":
		return decoded(hex.Decode, text[2:], binary, "0x is followed by what is no hex: two digits for each byte and nothing else")
	case string(encoding) == "0s":
		return decoded(base64.StdEncoding.Strict().Decode, text[2:], binary, "0s is followed by what is no base64; for a key that is text and begins so, write 0x and its bytes in hex")
	case binary:
		return raw, append(odditiesOf(text), moreThanALine), ""
	}
	return text, odditiesOf(text), ""
}

const moreThanALine = "holds a tab or more than one line, so every byte of it belongs to the key, a newline at its end too"

// strangeToText is true for the control characters that no text editor writes.
func strangeToText(r rune) bool {
	return unicode.IsControl(r) && r != '\t' && r != '\r' && r != '\n'
}

// decoded leaves nothing of the text. It says nothing of what it could not read: that is part of a key.
func decoded(decode func(dst, src []byte) (int, error), text []byte, binary bool, malformed string) ([]byte, []string, string) {
	defer clear(text)
	key := make([]byte, len(text))
	n, err := decode(key, text)
	if err != nil || binary { // base64 would skip newlines
		clear(key)
		return nil, nil, malformed
	}
	return key[:n], nil, ""
}

// odditiesOf are what the other side's key most likely does not have.
func odditiesOf(text []byte) (notes []string) {
	if bytes.HasPrefix(text, byteOrderMark) {
		notes = append(notes, "begins with a byte order mark, which belongs to the key")
	}
	text = bytes.TrimPrefix(text, byteOrderMark)
	line := bytes.TrimRight(text, "\r\n")
	if bytes.HasPrefix(text, []byte(" ")) || bytes.HasPrefix(text, []byte("\t")) || !bytes.Equal(bytes.TrimRight(line, " \t"), line) {
		notes = append(notes, "begins or ends with a blank, which belongs to the key")
	}
	if n := len(line); n > 1 && line[0] == line[n-1] && (line[0] == '"' || line[0] == '\'') {
		notes = append(notes, "stands in quotes, which belong to the key")
	}
	return notes
}

// withoutNewline drops one line end.
func withoutNewline(b []byte) []byte {
	if rest, found := bytes.CutSuffix(b, []byte("\n")); found {
		return bytes.TrimSuffix(rest, []byte("\r"))
	}
	return b
}
