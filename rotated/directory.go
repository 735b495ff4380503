package rotated

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The symbolic links in a directory of versions: the one that names the version
// to use, and the one that names the next, while there is one beside it.
const (
	current = "current"
	next    = "next"
)

// Dir returns the [Source] that reads the named fields in the directory of
// versions at path: it holds one directory for each version, with one file for
// each field, and the symbolic link current, which names one of them by a
// relative path. While a next version stands beside the current one, the link
// next names it: that is the second candidate.
//
// The link is followed once and all fields are read in the directory that it
// named, so that a move in between cannot mix two versions. For the same
// reason containers must mount path itself: what is mounted from inside of it
// never sees the link move.
func Dir(path string, fields ...string) *Source {
	fields = slices.Clone(fields)
	return &Source{read: func() ([]Credential, error) {
		if err := checkFields(fields); err != nil {
			return nil, err
		}
		first, err := readLinked(path, current, fields)
		if err != nil && !errors.Is(err, ErrMissing) {
			return nil, err
		}
		second, nextErr := readLinked(path, next, fields)
		switch {
		case err != nil && nextErr != nil:
			return nil, err // whatever is wrong with the next one
		case err != nil:
			return []Credential{second}, nil
		case nextErr != nil:
			return []Credential{first}, nil
		}
		return []Credential{first, second}, nil
	}}
}

func checkFields(fields []string) error {
	if len(fields) == 0 {
		return errors.New("no field is asked for")
	}
	for _, name := range fields {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, `/\`) {
			return fmt.Errorf("field %q cannot be the name of a file", name)
		}
	}
	return nil
}

// moves bounds how often the link is followed again.
const moves = 8

// readLinked reads the fields of the version that a link names. A version
// is removed only after the link has moved on, so where something is missing,
// the link is followed once more.
func readLinked(path, link string, fields []string) (c Credential, err error) {
	for range moves {
		c, err = readVersion(path, link, fields)
		if !errors.Is(err, ErrMissing) {
			break
		}
	}
	return c, err
}

// readVersion follows the link once, and reads under what it came to.
func readVersion(path, link string, fields []string) (c Credential, err error) {
	parent, err := os.OpenRoot(path)
	if err != nil {
		return Credential{}, missing(err)
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	origin := filepath.Join(path, link)
	dir, err := parent.OpenRoot(link)
	if err != nil {
		return Credential{}, fmt.Errorf("following %q: %w", origin, missing(err))
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	values := make(map[string]string, len(fields))
	for _, name := range fields {
		if values[name], err = readUnder(dir, name, filepath.Join(origin, name)); err != nil {
			return Credential{}, err
		}
	}
	return newCredential(origin, values), nil
}

func readUnder(dir *os.Root, name, shown string) (value string, err error) {
	info, err := dir.Stat(name) // before opening, which would wait for the writer of a pipe
	if err != nil {
		return "", fmt.Errorf("file %q: %w", shown, missing(err))
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("file %q is not a regular file", shown)
	}
	f, err := dir.Open(name)
	if err != nil {
		return "", fmt.Errorf("file %q: %w", shown, missing(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readField(f, shown)
}
