package directory

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Put writes the version: one file per field of the material, and one per
// public field that the material lacks. The version appears by one rename when
// all is on disk. If it is there already, it must hold the same fields with
// the same bytes.
func (t *Target) Put(ctx context.Context, v rotation.Version, m rotation.Material) (rotation.Version, error) {
	put := func() error {
		p, err := placeOf(v)
		if err != nil {
			return err
		}
		all, err := t.fields(v, m)
		if err != nil {
			return err
		}
		h, err := t.open(v.Credential, true)
		if err != nil {
			return err
		}
		defer h.close()
		if err := h.lock(ctx); err != nil {
			return err
		}
		if err := errors.Join(ctx.Err(), h.sweep()); err != nil {
			return err
		}
		_, err = h.Lstat(p.dir)
		switch {
		case err == nil:
			err = h.equal(p, all)
		case errors.Is(err, fs.ErrNotExist):
			err = t.write(h, v.Number, p, all)
		}
		if err != nil {
			return err
		}
		v = v.Clone()
		v.Objects = objects(v.Credential, p.dir, all.Fields())
		return h.sync()
	}
	if err := put(); err != nil {
		return rotation.Version{}, about("putting", v, err)
	}
	return v, nil
}

// fields returns every field that is to be written, and refuses a credential
// that is not whole.
func (t *Target) fields(v rotation.Version, m rotation.Material) (rotation.Material, error) {
	all := maps.Clone(m)
	if all == nil {
		all = rotation.Material{}
	}
	for f, public := range v.Public {
		if have, ok := all[f]; !ok {
			all[f] = secret.FromString(public)
		} else if !same(have, secret.FromString(public)) {
			return nil, rotation.Errorf(rotation.Invalid, "", "the public field %q differs between the record and the material", f)
		}
	}
	for f, value := range all {
		if err := checkName("field", f); err != nil {
			return nil, err
		}
		if _, public := v.Public[f]; value.Empty() && !public || len(value.Reveal()) > maxField {
			return nil, rotation.Errorf(rotation.Invalid, "", "field %q is empty or larger than %d bytes", f, maxField)
		}
	}
	for _, f := range t.needed(v.Credential) {
		if _, ok := all[f]; !ok {
			return nil, rotation.Errorf(rotation.Invalid, "", "field %q is read by a service, but the backend makes no such field", f)
		}
	}
	if len(all) == 0 {
		return nil, rotation.Errorf(rotation.Invalid, "", "there is no field to put")
	}
	return all, nil
}

// write makes the version beside its place, makes it durable, and renames it.
func (t *Target) write(h *home, number int, p place, all rotation.Material) (err error) {
	if p.dir != versionName(number) {
		return fmt.Errorf("the directory %q that held it is gone", p.dir)
	}
	how, err := t.ownership(h)
	if err != nil {
		return err
	}
	tmp := temporary(p.dir, "tmp")
	if err := h.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	h.at("made temporary directory")
	defer func() {
		if err != nil {
			err = errors.Join(err, h.discard(tmp))
		}
	}()
	dir, err := openDir(h.Root, tmp)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	for _, field := range all.Fields() {
		if err := h.writeField(dir, field, all[field], how.file(field)); err != nil {
			return fmt.Errorf("writing field %q: %w", field, err)
		}
	}
	if err := how.directory(dir); err != nil {
		return err
	}
	h.at("synced temporary directory")
	if err := h.Rename(tmp, p.dir); err != nil {
		return err
	}
	h.at("renamed version")
	return nil
}

// writeField writes one file and makes it durable.
func (h *home) writeField(dir *os.Root, field string, value secret.Value, a attributes) (err error) {
	f, err := dir.OpenFile(field, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h.at("made file")
	if _, err := f.Write(value.Reveal()); err != nil {
		return err
	}
	if err := a.apply(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	h.at("synced file")
	return nil
}

// equal compares what is at a place with what is wanted there.
func (h *home) equal(p place, want rotation.Material) error {
	dir, err := h.openPlace(p)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if !p.plain() {
		if extra, err := others(dir, want.Fields()); err != nil || len(extra) > 0 {
			return errors.Join(foreign(h, p, extra), err)
		}
	}
	for _, field := range want.Fields() {
		have, err := readField(dir, field)
		if err != nil {
			return fmt.Errorf("field %q: %w", field, err)
		}
		ok := same(have, want[field])
		have.Wipe()
		if !ok {
			return rotation.Errorf(rotation.Failed, "a version is never overwritten: discard it and prepare the next number",
				"field %q holds other bytes already", field)
		}
	}
	return nil
}

// same compares two values in a time that does not depend on where they differ.
func same(a, b secret.Value) bool { return subtle.ConstantTimeCompare(a.Reveal(), b.Reveal()) == 1 }

// others returns the names in a directory that are none of ours, sorted.
func others(dir *os.Root, ours []string) ([]string, error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !slices.Contains(ours, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// foreign is the error of a version directory with files that are not ours.
func foreign(h *home, p place, names []string) error {
	if len(names) == 0 {
		return nil
	}
	return rotation.Errorf(rotation.Refused, "look at them, move them elsewhere, and run this again",
		"the directory %q holds what Keyturn did not put there: %q", h.credential+"/"+p.dir, names)
}
