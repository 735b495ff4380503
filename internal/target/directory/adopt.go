package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Adopt returns what applications read of the credential now as version 1: the
// directory that "current" leads to, whatever its name, or the plain files in
// the home if there is no such link. It changes nothing, and reads the values
// of public fields only.
//
// An application that reads plain files has to be changed to read them below
// "current" before the first rotation: no move reaches it otherwise. See
// [Target.Preflight].
func (t *Target) Adopt(_ context.Context, credential string) (rotation.Version, error) {
	v := rotation.Version{Credential: credential, Number: 1, Public: map[string]string{}}
	adopt := func() error {
		h, err := t.open(credential, false)
		if errors.Is(err, fs.ErrNotExist) {
			return nothingToAdopt(t.Root, credential)
		}
		if err != nil {
			return err
		}
		defer h.close()
		to, err := h.link(currentLink)
		if err != nil {
			return err
		}
		if to == "" {
			to = "."
		}
		if isVersion(to) && to != versionName(v.Number) {
			return rotation.Errorf(rotation.Invalid,
				fmt.Sprintf("beside it: cp -a %s initial && ln -s initial link && mv -T link current, then move %s elsewhere", to, to),
				"%q leads to %q, whose name is that of another version than %d", credential+"/"+currentLink, to, v.Number)
		}
		dir, err := h.openPlace(place{dir: to})
		if err != nil {
			return fmt.Errorf("opening what %q leads to: %w", credential+"/"+currentLink, err)
		}
		defer func() { _ = dir.Close() }()
		fields, err := t.adoptable(dir, credential, to == ".")
		if err != nil {
			return err
		}
		v.Objects = objects(credential, to, fields)
		return t.readPublic(dir, &v)
	}
	if err := adopt(); err != nil {
		return rotation.Version{}, err
	}
	return v, nil
}

func nothingToAdopt(root, credential string) error {
	return rotation.Errorf(rotation.Invalid, "put a file per field there, such as username and password, or let Keyturn create the credential",
		"there is nothing to adopt: no field stands in %q", root+"/"+credential)
}

// adoptable returns the fields of a directory. Anything there that cannot be a
// field is an error, for it would never be removed; in the home itself other
// things may stand.
func (t *Target) adoptable(dir *os.Root, credential string, inHome bool) ([]string, error) {
	files, err := fieldFiles(dir, inHome)
	if err != nil {
		return nil, err
	}
	var fields []string
	for _, fi := range files {
		fields = append(fields, fi.Name())
	}
	if lost := missing(fields, slices.Concat(t.needed(credential), t.told(credential))); len(lost) > 0 {
		return nil, rotation.Errorf(rotation.Invalid, "name the files as the fields are named, each a file of its own, no symlink",
			"there is no file for %s", strings.Join(lost, ", "))
	}
	if len(fields) == 0 {
		return nil, nothingToAdopt(t.Root, credential)
	}
	if !inHome {
		extra, err := others(dir, fields)
		if err != nil {
			return nil, err
		}
		if len(extra) > 0 {
			return nil, rotation.Errorf(rotation.Invalid, "move it elsewhere", "the directory holds what cannot be a field: %q", extra)
		}
	}
	return fields, nil
}

// told returns the public fields that every version has.
func (t *Target) told(credential string) []string {
	return slices.DeleteFunc(slices.Clone(t.Public[credential]), func(f string) bool { return slices.Contains(t.Derived[credential], f) })
}

// readPublic reads the fields that are no secret.
func (t *Target) readPublic(dir *os.Root, v *rotation.Version) error {
	for _, f := range slices.Concat(t.told(v.Credential), t.Derived[v.Credential]) {
		if slices.Contains(t.Derived[v.Credential], f) {
			if _, err := dir.Lstat(f); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		value, err := readField(dir, f)
		if err != nil {
			return fmt.Errorf("reading the public field %q: %w", f, err)
		}
		b := secret.TrimNewline(value.Reveal())
		if len(b) > 1024 || !utf8.Valid(b) || strings.ContainsFunc(string(b), unicode.IsControl) {
			return rotation.Errorf(rotation.Invalid, "is it public at all?", "the public field %q is not one short line of text", f)
		}
		v.Public[f] = string(b)
	}
	return nil
}
