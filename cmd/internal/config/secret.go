package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ikepulse/ikepulse/cmd/internal/ownership"
)

const (
	minPSK = 20
	maxPSK = 4096
)

// redacted stands wherever a secret would be printed.
const redacted = "[redacted]"

// PSK is a pre-shared key. Printing, logging or marshalling it, or anything
// that holds it, shows only that it is one: the bytes stand behind a pointer,
// which even a printer that looks into unexported fields does not follow.
type PSK struct{ value *[]byte }

// Bytes is the key itself, or nil. The caller may wipe it when done.
func (p PSK) Bytes() []byte {
	if p.value == nil {
		return nil
	}
	return *p.value
}

func (p PSK) String() string { return redacted }

// Format is there because %x and its like do not ask String.
func (p PSK) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// LogValue keeps the key out of logs.
func (p PSK) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the key out of whatever is marshalled.
func (p PSK) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// readSecrets reads the files that the secrets name.
func (l *loader) readSecrets() {
	for i, at := range l.secretFilesAt {
		s := &l.cfg.Secrets[i]
		if s.File == "" { // missing, and reported as such
			continue
		}
		psk, notes, complaint := readPSK(s.File)
		for _, text := range notes {
			l.note(at, pskFileKey, printable(s.File)+": "+text)
		}
		switch {
		case complaint == hidden && l.unprivileged:
			l.noteHidden(s.File, at)
		case complaint != "":
			l.reportFile(at, s.File, complaint)
		}
		err := l.trust.check(s.File, func(text string) { l.reportFile(at, s.File, text) })
		if err != nil && complaint == "" {
			l.reportFile(at, s.File, reason(err))
		}
		s.PSK = psk
	}
	l.noteSome(l.hidden, "more files of secrets that are not readable for you")
}

// ReadPSK returns the key in a file, by the rules for those that a configuration
// names, and what about it may not be meant.
func ReadPSK(path string) (psk PSK, notes []string, err error) {
	psk, notes, complaint := readPSK(path)
	if complaint == "" {
		if err := newTrust().check(path, func(text string) { complaint = cmp.Or(complaint, text) }); err != nil {
			complaint = reason(err)
		}
	}
	if complaint != "" {
		clear(psk.Bytes())
		return PSK{}, nil, fmt.Errorf("%s: %s", printable(path), complaint)
	}
	for i := range notes {
		notes[i] = printable(path) + ": " + notes[i]
	}
	return psk, notes, nil
}

// hidden is the complaint about a file that permissions keep from us.
const hidden = "permission denied"

// readPSK returns the key in a file, or what is wrong with the file.
func readPSK(path string) (psk PSK, notes []string, complaint string) {
	raw, info, err := readRegular(path, maxPSK)
	if errors.Is(err, fs.ErrPermission) {
		return PSK{}, nil, hidden
	}
	if err != nil {
		return PSK{}, nil, reason(err)
	}
	if complaint := cmp.Or(openToOthers(path, info.Mode()), ownership.Complaint(info)); complaint != "" {
		clear(raw)
		return PSK{}, nil, complaint
	}
	value, notes, complaint := keyOf(raw)
	if complaint == "" {
		complaint = lengthOf(value)
	}
	if complaint != "" {
		clear(raw)
		clear(value)
		return PSK{}, nil, complaint
	}
	return PSK{&value}, notes, ""
}

// noteHidden checks what can be seen of a secret from outside: its mode, if
// not even that is hidden. Whose it should be is not known here, since the
// gateway will run as somebody else.
func (l *loader) noteHidden(path string, at Pos) {
	if info, err := os.Stat(path); err == nil {
		if complaint := openToOthers(path, info.Mode()); complaint != "" {
			l.reportFile(at, path, complaint)
			return
		}
	}
	l.hidden = append(l.hidden, Problem{at, pskFileKey, printable(path) + ": not readable for you, so its content was not checked"})
}

const pskFileKey = "secrets.psk_file"

func (l *loader) reportFile(at Pos, path, complaint string) {
	l.report(at, pskFileKey, printable(path)+": "+complaint)
}

// openToOthers says what is wrong with a secret's mode, or "".
func openToOthers(path string, mode fs.FileMode) string {
	if mode.Perm()&0o077 != 0 && !ownership.OnlyByName(path) {
		return fmt.Sprintf("open to others (mode %04o); make it 0600", mode.Perm())
	}
	return ""
}

func lengthOf(psk []byte) string {
	switch {
	case len(psk) == 0:
		return "empty"
	case len(psk) < minPSK:
		return fmt.Sprintf("only %d bytes; a secret needs at least %d", len(psk), minPSK)
	}
	return ""
}

// beside resolves a path as the file that holds it sees it.
func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}
