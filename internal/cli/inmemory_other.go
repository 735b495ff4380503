//go:build !linux

package cli

import (
	"errors"
	"os"
)

// inMemory is built for Linux alone.
func inMemory(string, []byte) (*os.File, error) {
	return nil, errors.New("a file that is only in memory is built for Linux alone")
}
