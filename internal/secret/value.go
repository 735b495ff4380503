// Package secret holds values that must never be shown: the one type that
// cannot be printed, how new values are made, and the keyed fingerprints that
// stand for them on the record.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every way of printing a [Value] yields.
const Redacted = "[redacted]"

// A Value is a secret. Its bytes stand behind a pointer to a closure, so that no verb
// of fmt, no encoder and no reflection-based printer reaches them, even where
// the Value is an unexported field of a printed struct. [Value.Reveal] is the
// one way out.
//
// The zero Value is empty. A Value is safe for concurrent readers.
type Value struct {
	b func() []byte
}

// New returns a Value that holds a copy of b.
func New(b []byte) Value {
	held := append([]byte(nil), b...)
	return Value{b: func() []byte { return held }}
}

// FromString returns a Value that holds the bytes of s.
func FromString(s string) Value { return New([]byte(s)) }

// Reveal returns the bytes themselves, not a copy. The caller must not print,
// keep or change them.
func (v Value) Reveal() []byte {
	if v.b == nil {
		return nil
	}
	return v.b()
}

// Empty reports whether the Value holds no byte.
func (v Value) Empty() bool { return len(v.Reveal()) == 0 }

// Wipe overwrites the bytes. Every copy of the Value shares them.
func (v Value) Wipe() { clear(v.Reveal()) }

// String returns [Redacted].
func (Value) String() string { return Redacted }

// GoString returns [Redacted].
func (Value) GoString() string { return Redacted }

// Format writes [Redacted], whatever the verb.
func (Value) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, Redacted) }

// LogValue returns [Redacted].
func (Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns [Redacted]: encoders that honour it (JSON, YAML, XML)
// cannot write the value.
func (Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON returns [Redacted] as a JSON string.
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }
