package vault

import (
	"strings"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
)

// isAbsent reports whether an error says that there is no secret-id with the accessor that
// was asked for: 404, or of older releases 500.
func isAbsent(err error) bool {
	a := vaultapi.Answered(err)
	return a != nil && strings.Contains(a.Text, "failed to find accessor entry")
}

// refused is an error of ours.
func refused(hint, format string, args ...any) error { return words.Refused(hint, format, args...) }
