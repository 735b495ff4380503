package rotated

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// redacted is what every way of printing a [Credential] yields.
const redacted = "[redacted]"

// A Credential is one whole credential: every field from the same place, read
// at the same time. It cannot be printed: its values stand behind a function,
// so that no verb of fmt, no encoder and no printer that walks structs reaches
// them, even where it is an unexported field of what is printed.
//
// The zero Credential has no field. A Credential never changes and is safe for
// concurrent use.
type Credential struct {
	get func() content
}

// content is what a Credential holds.
type content struct {
	fields map[string]string
	origin string
}

func newCredential(origin string, fields map[string]string) Credential {
	c := content{fields: fields, origin: origin}
	return Credential{get: func() content { return c }}
}

func (c Credential) content() content {
	if c.get == nil {
		return content{}
	}
	return c.get()
}

// Field returns the value of a field, or "" if the credential has no such
// field. The value is a secret: give it to the client that logs in, and to
// nothing that prints or keeps it.
func (c Credential) Field(name string) string { return c.content().fields[name] }

// Has reports whether the credential has a field of that name. No field is empty.
func (c Credential) Has(name string) bool {
	_, ok := c.content().fields[name]
	return ok
}

// Origin says where the credential was read, for logs: variables and paths,
// never a value.
func (c Credential) Origin() string { return c.content().origin }

// IsZero reports whether the Credential has no field.
func (c Credential) IsZero() bool { return len(c.content().fields) == 0 }

// Equal reports whether both have the same fields with the same values,
// wherever they were read. The time it takes does not depend on the values.
func (c Credential) Equal(other Credential) bool {
	a, b := c.content().fields, other.content().fields
	if len(a) != len(b) {
		return false
	}
	same := 1
	for name, value := range a {
		theirs, ok := b[name]
		if !ok {
			return false
		}
		same &= subtle.ConstantTimeCompare([]byte(value), []byte(theirs))
	}
	return same == 1
}

// String returns a fixed text without any value.
func (Credential) String() string { return redacted }

// GoString returns a fixed text without any value.
func (Credential) GoString() string { return redacted }

// Format writes a fixed text without any value, whatever the verb.
func (Credential) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns a fixed text without any value.
func (Credential) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a fixed text without any value, for encoders that honour it.
func (Credential) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// contains reports whether one of the list has the same fields and values as c.
func contains(list []Credential, c Credential) bool {
	return slices.ContainsFunc(list, c.Equal)
}
