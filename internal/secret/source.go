package secret

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Source says where a secret value that is handed to us stands: an
// environment variable or a file, never the value itself. The zero Source
// names nothing.
type Source struct {
	Env  string // name of an environment variable
	File string // path of a file
}

// IsZero reports whether the Source names nothing.
func (s Source) IsZero() bool { return s == Source{} }

// Problem says what is wrong with the place of a secret that must have one, as what follows its
// name, and what to write instead; "" if nothing is.
func (s Source) Problem() (tip, problem string) {
	switch {
	case s.IsZero():
		return "write {from-env: NAME} or {from-file: PATH}", "has no place"
	case s.Env != "" && s.File != "":
		return "keep one of from-env and from-file", "has two places"
	}
	return "", ""
}

// Beside returns the folder in which a directory target keeps the field that is read by its link: that
// of FOLDER/current/FIELD. It reports false if the value is not read so.
func (s Source) Beside(field string) (folder string, ok bool) {
	folder, ok = strings.CutSuffix(s.File, filepath.Join("/current", field))
	return folder, ok && filepath.IsAbs(s.File) && s.Env == ""
}

// String names the place, for messages.
func (s Source) String() string {
	switch {
	case s.Env != "":
		return "environment variable " + s.Env
	case s.File != "":
		return "file " + s.File
	}
	return "nowhere"
}

// ErrMissing is the error of a [Source] whose place holds no value.
var ErrMissing = errors.New("holds no value")

// Read returns the value that stands at the place, without one trailing
// newline. Getenv looks a variable up ([os.Getenv]).
func (s Source) Read(getenv func(string) string) (Value, error) {
	var b []byte
	switch {
	case s.Env != "":
		b = TrimNewline([]byte(getenv(s.Env)))
	case s.File != "":
		var err error
		if b, err = os.ReadFile(s.File); err != nil {
			return Value{}, fmt.Errorf("reading a secret: %w", err)
		}
		b = TrimNewline(b)
	}
	if len(b) == 0 {
		return Value{}, fmt.Errorf("reading a secret: %s %w", s, ErrMissing)
	}
	return New(b), nil
}

// TrimNewline returns b without one trailing newline ("\n" or "\r\n"), which
// editors and echo leave at the end of secret files. A "\r" alone is none.
func TrimNewline(b []byte) []byte {
	if line, ok := bytes.CutSuffix(b, []byte("\n")); ok {
		return bytes.TrimSuffix(line, []byte("\r"))
	}
	return b
}
