package rotated

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Files returns the [Source] that reads each field in the file at a fixed
// path, for files that no variable names: {"/run/secrets/db_url": "dsn"}.
func Files(fields map[string]string) *Source {
	paths := map[string]string{}
	var wrong error
	for _, path := range slices.Sorted(maps.Keys(fields)) {
		field := fields[path]
		if other, ok := paths[field]; ok {
			wrong = fmt.Errorf("field %q stands both in %q and in %q", field, other, path)
		}
		if path == "" || field == "" {
			wrong = fmt.Errorf("path %q holds field %q: neither may be empty", path, field)
		}
		paths[field] = path
	}
	origin := strings.Join(slices.Sorted(maps.Values(paths)), " and ")
	return &Source{read: func() ([]Credential, error) {
		if wrong != nil {
			return nil, wrong
		}
		if len(paths) == 0 {
			return nil, errors.New("no file is asked for")
		}
		values, err := readFiles(paths)
		if err != nil {
			return nil, err
		}
		return []Credential{newCredential(origin, values)}, nil
	}}
}

// readings bounds how often files that keep changing are read.
const readings = 16

// readFiles reads the files at the given paths, by field, as they stood
// together at one moment.
//
// Somebody may replace them meanwhile, by a link that leads to all of them. So
// they are read until two readings in a row agree. No password is ever used
// twice, so nothing moved between two sights of the same one, and every other
// field was seen in between, before or after it.
func readFiles(paths map[string]string) (map[string]string, error) {
	before, err := readFilesOnce(paths)
	if len(paths) < 2 && err == nil {
		return before, nil
	}
	for range readings {
		now, nowErr := readFilesOnce(paths)
		switch {
		case err != nil && nowErr != nil:
			return nil, nowErr
		case err == nil && nowErr == nil && maps.Equal(before, now):
			return now, nil
		}
		before, err = now, nowErr
	}
	return nil, errors.New("the files change faster than they can be read")
}

func readFilesOnce(paths map[string]string) (map[string]string, error) {
	values := make(map[string]string, len(paths))
	for _, field := range slices.Sorted(maps.Keys(paths)) {
		value, err := readFile(paths[field])
		if err != nil {
			return nil, err
		}
		values[field] = value
	}
	return values, nil
}

func readFile(path string) (value string, err error) {
	info, err := os.Stat(path) // before opening, which would wait for the writer of a pipe
	if err != nil {
		return "", missing(err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("file %q is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", missing(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readField(f, path)
}
