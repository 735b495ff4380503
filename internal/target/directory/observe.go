package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Observe returns the files of the version and the links that lead to it. It
// reads no value. A version is complete if every field is there that its
// services read and that the record knows of.
func (t *Target) Observe(_ context.Context, v rotation.Version) (rotation.Holding, error) {
	var holding rotation.Holding
	observe := func() error {
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
		names, err := h.present(p)
		if err != nil {
			return err
		}
		holding.Objects = objects(v.Credential, p.dir, names)
		holding.Complete = len(names) > 0 && len(missing(names, t.required(v))) == 0
		holding.Uses, err = t.uses(h, p)
		return err
	}
	if err := observe(); err != nil {
		return rotation.Holding{}, about("observing", v, err)
	}
	return holding, nil
}

// required returns the fields without which a version is not whole.
func (t *Target) required(v rotation.Version) []string {
	fields := t.needed(v.Credential)
	if len(v.Objects) > 0 {
		return slices.AppendSeq(fields, maps.Keys(v.Objects))
	}
	fields = slices.AppendSeq(fields, maps.Keys(v.Fingerprints))
	return slices.AppendSeq(fields, maps.Keys(v.Public))
}

// missing returns those of want that are not in have, sorted.
func missing(have, want []string) []string {
	var names []string
	for _, f := range want {
		if !slices.Contains(have, f) {
			names = append(names, f)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// present returns the fields of a place whose files are there: those that the
// record names or, if it names none, all that look like ours.
func (h *home) present(p place) ([]string, error) {
	dir, err := h.openPlace(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	if len(p.fields) == 0 {
		return ours(dir)
	}
	var names []string
	for _, f := range p.fields {
		_, err := regular(dir, f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		names = append(names, f)
	}
	return names, nil
}

// ours returns the names in a version directory that look like fields which we
// wrote: files with a plain name that nobody can write to.
func ours(dir *os.Root) ([]string, error) {
	files, err := fieldFiles(dir, false)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, fi := range files {
		if fi.Mode()&0o222 == 0 {
			names = append(names, fi.Name())
		}
	}
	return names, nil
}

// fieldFiles returns the files of a directory whose names can be fields. In a
// home, the names of versions and links are no fields.
func fieldFiles(dir *os.Root, inHome bool) ([]fs.FileInfo, error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if checkName("field", e.Name()) != nil || inHome && (reserved(e.Name()) || isVersion(e.Name())) {
			continue
		}
		if fi, err := dir.Lstat(e.Name()); err == nil && fi.Mode().IsRegular() {
			files = append(files, fi)
		}
	}
	return files, nil
}

// uses returns what leads readers to a place. Plain files are also read where
// no link leads elsewhere yet.
func (t *Target) uses(h *home, p place) ([]rotation.Use, error) {
	var uses []rotation.Use
	for _, link := range []string{currentLink, nextLink} {
		to, err := h.link(link)
		if err != nil {
			return nil, err
		}
		detail := path.Join(h.credential, link) + " leads to it"
		if to == "" && p.plain() && link == currentLink {
			to, detail = p.dir, "there is no "+path.Join(h.credential, link)+" yet"
		}
		if to != p.dir {
			continue
		}
		for _, s := range t.services(h.credential) {
			uses = append(uses, rotation.Use{Kind: "spec", Name: s, Detail: detail})
		}
	}
	return uses, nil
}

// Orphans returns every version directory of the credential. It reads only;
// what a killed Put left half-made is no version, and the next change removes it.
func (t *Target) Orphans(_ context.Context, credential string) ([]rotation.Orphan, error) {
	h, err := t.open(credential, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, looking(credential, err)
	}
	defer h.close()
	entries, err := fs.ReadDir(h.FS(), ".")
	if err != nil {
		return nil, looking(credential, err)
	}
	var found []rotation.Orphan
	for _, e := range entries {
		number, ok := versionNumber(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		names, err := h.present(place{dir: e.Name()})
		if err != nil {
			return nil, looking(credential, err)
		}
		if len(names) == 0 { // never ours: a version of ours is whole
			continue
		}
		found = append(found, rotation.Orphan{Version: rotation.Version{
			Credential: credential, Number: number, Objects: objects(credential, e.Name(), names)}})
	}
	slices.SortFunc(found, func(a, b rotation.Orphan) int { return cmp.Compare(a.Version.Number, b.Version.Number) })
	return found, nil
}

func looking(credential string, err error) error {
	return fmt.Errorf("looking for versions of %q: %w", credential, err)
}
