package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Remove removes the files that the version's objects name, and the version's
// directory. The directory goes by one rename before its files do, so that
// nobody ever finds a part of a version. If a link leads to the version, or
// the directory holds anything else, nothing is removed.
func (t *Target) Remove(ctx context.Context, v rotation.Version) error {
	remove := func() error {
		p, err := placeOf(v)
		if err != nil {
			return err
		}
		h, err := t.open(v.Credential, false)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer h.close()
		if err := errors.Join(ctx.Err(), h.lock(ctx)); err != nil {
			return err
		}
		if err := h.sweep(); err != nil {
			return err
		}
		if len(v.Objects) == 0 {
			return nil
		}
		uses, err := t.uses(h, p)
		if err != nil {
			return err
		}
		if len(uses) > 0 {
			return inUse(uses)
		}
		if p.plain() {
			return h.removePlain(p)
		}
		return h.removeDir(p)
	}
	if err := remove(); err != nil {
		return about("removing", v, err)
	}
	return nil
}

// inUse is the error of a version that links lead to.
func inUse(uses []rotation.Use) error {
	var by []string
	for _, u := range uses {
		by = append(by, fmt.Sprintf("%s (%s)", u.Name, u.Detail))
	}
	return fmt.Errorf("%w by %s", rotation.ErrInUse, strings.Join(by, ", "))
}

// removeDir removes a version directory with the fields of the place in it.
func (h *home) removeDir(p place) error {
	dir, err := h.openPlace(p)
	if errors.Is(err, fs.ErrNotExist) {
		return h.sync() // a killed call may have removed it and not synced
	}
	if err != nil {
		return err
	}
	extra, err := others(dir, p.fields)
	for _, f := range p.fields {
		if _, ferr := regular(dir, f); ferr != nil && !errors.Is(ferr, fs.ErrNotExist) {
			err = errors.Join(err, ferr)
		}
	}
	if err := errors.Join(err, dir.Close(), foreign(h, p, extra)); err != nil {
		return err
	}
	gone := temporary(p.dir, "gone")
	if err := h.Rename(p.dir, gone); err != nil {
		return err
	}
	h.at("renamed away")
	if err := h.sync(); err != nil {
		return err
	}
	if err := h.discard(gone); err != nil {
		return err
	}
	h.at("discarded")
	return h.sync()
}

// removePlain removes the fields of a version that was adopted from files in
// the home itself.
func (h *home) removePlain(p place) error {
	for _, f := range p.fields {
		_, err := regular(h.Root, f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = h.Root.Remove(f)
		}
		if err != nil {
			return err
		}
		h.at("removed file")
	}
	return h.sync()
}
