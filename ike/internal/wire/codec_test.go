package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// unhex reads bytes written in groups; what follows a # on a line is comment.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// generically puts a generic header that names no next before a body.
func generically(body []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(genericLen+len(body)))
	return append(b, body...)
}

// codecTest pairs a payload with its body, written out by hand from the RFC.
type codecTest struct {
	name string
	body string
	want Payload
	// other is what is written for want, where body holds what must be ignored.
	other string
}

// checkCodec reads each body and writes it again.
func checkCodec(t *testing.T, tests []codecTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body := unhex(t, tt.body)
			ps, err := ParsePayloads(tt.want.Type(), generically(body))
			if err != nil {
				t.Fatal(err)
			}
			if len(ps) != 1 || !reflect.DeepEqual(ps[0], tt.want) {
				t.Errorf("parsed  %+v\nwant    %+v", ps[0], tt.want)
			}
			if tt.other != "" {
				body = unhex(t, tt.other)
			}
			got, first := AppendPayloads(nil, []Payload{tt.want})
			if want := generically(body); !reflect.DeepEqual(got, want) || first != tt.want.Type() {
				t.Errorf("wrote %s: %x\nwant  %s: %x", first, got, tt.want.Type(), want)
			}
		})
	}
}

// refusal is a body that must be refused, for the reason want.
type refusal struct{ name, body, want string }

func checkRefusals(t *testing.T, typ PayloadType, tests []refusal) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParsePayloads(typ, generically(unhex(t, tt.body)))
			checkSyntax(t, err, typ, tt.want)
		})
	}
}

func checkSyntax(t *testing.T, err error, typ PayloadType, want string) {
	t.Helper()
	var syntax *SyntaxError
	if !errors.As(err, &syntax) {
		t.Fatalf("got %v, want a syntax error: %s", err, want)
	}
	if syntax.Payload != typ || !strings.Contains(syntax.Msg, want) {
		t.Errorf("got %v, want in %s: %s", err, typ, want)
	}
}
