package rotated

import (
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// maxSize is the size in bytes up to which a file is taken for a credential;
// Docker's secrets end at 500 kB.
const maxSize = 1 << 20

// readField returns the content of an open file without one newline at its
// end. Empty is missing. Errors name the file by the given name.
func readField(f fs.File, name string) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("file %q is not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return "", fmt.Errorf("file %q: %w", name, err)
	}
	if len(b) > maxSize {
		return "", fmt.Errorf("file %q is larger than %d bytes", name, maxSize)
	}
	text := trimNewline(string(b))
	if text == "" {
		return "", absent("file %q is empty", name)
	}
	return text, nil
}

// trimNewline returns s without one "\n" or "\r\n" at its end.
func trimNewline(s string) string {
	if t, ok := strings.CutSuffix(s, "\n"); ok {
		return strings.TrimSuffix(t, "\r")
	}
	return s
}
