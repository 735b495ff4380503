package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
)

const (
	// maxLine is the longest line of a journal, in bytes.
	maxLine = 1 << 20
	// maxInteger is the largest integer that every JSON reader takes exactly.
	maxInteger = 1<<53 - 1
)

// A form is the canonical form (RFC 8785) of an entry without its hash, in the
// two parts between which the hash stands.
type form struct{ head, tail []byte }

// digest returns the hash that an entry of this form ought to have.
func (f form) digest() string {
	h := sha256.New()
	h.Write(f.head)
	h.Write(f.tail)
	return hex.EncodeToString(h.Sum(nil))
}

// line returns the canonical form of the entry with its hash.
func (f form) line(hash string) []byte {
	return slices.Concat(f.head, []byte(`"hash":`), appendString(nil, hash), []byte(","), f.tail)
}

// formOf writes an entry in canonical form. It is written here, and not by a
// general library, because reading a journal writes every entry again to
// compare it; [seal] has every form checked by one.
func formOf(e Entry) (form, error) {
	w := writer{b: make([]byte, 0, 1024)}
	if e.Actor != (Actor{}) {
		w.name("actor")
		w.b = appendString(append(w.b, `{"name":`...), e.Actor.Name)
		w.b = append(strconv.AppendBool(append(w.b, `,"verified":`...), e.Actor.Verified), '}')
	}
	w.text("commit", e.Commit)
	w.text("credential", e.Credential)
	if len(e.Evidence) > 0 {
		w.name("evidence")
		if err := w.evidence(e.Evidence); err != nil {
			return form{}, fmt.Errorf("evidence: %w", err)
		}
	}
	split := len(w.b) + 1 // behind the brace or the comma
	w.text("identity", e.Identity)
	w.name("nonce")
	w.b = appendString(w.b, e.Nonce)
	w.text("phase", e.Phase)
	w.text("plan", e.Plan)
	w.name("prev")
	w.b = appendString(w.b, e.Prev)
	w.text("rotation", e.Rotation)
	if e.Run != (Run{}) {
		w.name("run")
		w.b = e.Run.appendTo(w.b)
	}
	w.name("seq")
	w.b = strconv.AppendInt(w.b, e.Seq, 10)
	w.text("status", e.Status)
	w.text("step", e.Step)
	w.name("time")
	w.b = appendString(w.b, e.Time.UTC().Format(timeLayout))
	w.number("version", e.Version)
	w.b = append(w.b, '}')
	return form{head: w.b[:split], tail: w.b[split:]}, nil
}

func (r Run) appendTo(b []byte) []byte {
	w := writer{b: b, from: len(b)}
	w.number("attempt", r.Attempt)
	w.text("host", r.Host)
	w.text("id", r.ID)
	w.number("pid", r.PID)
	w.text("url", r.URL)
	return append(w.b, '}')
}

// A writer writes the members of an object, whose names come in their order.
type writer struct {
	b    []byte
	from int // where the object begins
}

// name begins a member.
func (w *writer) name(name string) {
	sep := byte(',')
	if len(w.b) == w.from {
		sep = '{'
	}
	w.b = append(appendString(append(w.b, sep), name), ':')
}

// text writes a member unless it is empty.
func (w *writer) text(name, value string) {
	if value != "" {
		w.name(name)
		w.b = appendString(w.b, value)
	}
}

// number writes a member unless it is zero.
func (w *writer) number(name string, n int) {
	if n != 0 {
		w.name(name)
		w.b = strconv.AppendInt(w.b, int64(n), 10)
	}
}

func (w *writer) evidence(members map[string]json.RawMessage) error {
	object := writer{b: w.b, from: len(w.b)}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if err := checkName(name); err != nil {
			return err
		}
		object.name(name)
		var err error
		if object.b, err = appendRaw(object.b, members[name]); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	w.b = append(object.b, '}')
	return nil
}

// appendRaw writes a JSON value in canonical form. It refuses what other
// languages would read or write differently.
func appendRaw(b []byte, raw json.RawMessage) ([]byte, error) {
	if raw == nil {
		return append(b, "null"...), nil
	}
	if isPlain(raw) {
		return append(b, raw...), nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil || d.InputOffset() != int64(len(bytes.TrimRight(raw, " \t\r\n"))) {
		return nil, errors.New("is not JSON")
	}
	return appendValue(b, v)
}

// isPlain reports whether a value is in canonical form as it stands, of those of which that
// is seen at once: most are, and a decoder of its own is a kilobyte for each.
func isPlain(raw json.RawMessage) bool {
	switch text := string(raw); {
	case text == "true" || text == "false" || text == "null":
		return true
	case len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"':
		return !strings.ContainsFunc(text[1:len(text)-1], func(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' })
	case text != "" && text[0] >= '1' && text[0] <= '9':
		return len(text) <= 15 && strings.Trim(text, "0123456789") == ""
	}
	return string(raw) == "0"
}

func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v), nil
	case json.Number:
		return append(b, v...), checkNumber(string(v))
	case []any:
		return appendArray(b, v)
	case map[string]any:
		return appendObject(b, v)
	}
	return nil, fmt.Errorf("%T is no JSON value", v)
}

func appendArray(b []byte, items []any) (_ []byte, err error) {
	b = append(b, '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, item); err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return append(b, ']'), nil
}

func appendObject(b []byte, members map[string]any) (_ []byte, err error) {
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, name), ':')
		if b, err = appendValue(b, members[name]); err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
	}
	return append(b, '}'), nil
}

// appendString writes a string as RFC 8785 section 3.2.2.2 has it.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case c >= '\b' && c <= '\r' && c != '\v':
			b = append(b, '\\', "btn?fr"[c-'\b'])
		default:
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(b, '"')
}

func checkNumber(text string) error {
	if strings.ContainsAny(text, ".eE") || text == "-0" {
		return fmt.Errorf("number %s is not an integer: write it as a string, or in a smaller unit", text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > maxInteger || n < -maxInteger {
		return fmt.Errorf("number %s is outside ±(2^53-1): write it as a string", text)
	}
	return nil
}

// checkName refuses the names of members on whose order RFC 8785 (UTF-16 code
// units) and languages that sort by code point or by byte disagree.
func checkName(name string) error {
	if !utf8.ValidString(name) {
		return fmt.Errorf("name %q is not UTF-8", name)
	}
	for _, r := range name {
		if r >= 0xD800 {
			return fmt.Errorf("name %q has a character above U+D7FF", name)
		}
	}
	return nil
}

// evidence returns a copy of evidence with each value in canonical form. The
// values pass the general library too: it knows halves of surrogate pairs and
// names that stand twice, which encoding/json lets through.
func evidence(in map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[string]json.RawMessage, len(in))
	for name, raw := range in {
		text, err := appendRaw(nil, raw)
		if err == nil && raw != nil {
			_, err = jcs.Transform(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("evidence %q: %w", name, err)
		}
		out[name] = text
	}
	return out, nil
}

// checkFields refuses values of fields that would not come back as they are.
func checkFields(e Entry) error {
	for name, s := range map[string]string{"rotation": e.Rotation, "credential": e.Credential, "identity": e.Identity,
		"phase": e.Phase, "step": e.Step, "status": e.Status, "actor.name": e.Actor.Name, "run.id": e.Run.ID,
		"run.url": e.Run.URL, "run.host": e.Run.Host, "commit": e.Commit, "plan": e.Plan, "nonce": e.Nonce} {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%s %q is not UTF-8", name, s)
		}
	}
	for name, n := range map[string]int{"version": e.Version, "run.attempt": e.Run.Attempt, "run.pid": e.Run.PID} {
		if n < 0 || n > maxInteger {
			return fmt.Errorf("%s %d is outside 0 to 2^53-1", name, n)
		}
	}
	if y := e.Time.UTC().Year(); e.Time.IsZero() || y < 1 || y > 9999 {
		return errors.New("the time is missing, or outside the years 1 to 9999")
	}
	return nil
}
