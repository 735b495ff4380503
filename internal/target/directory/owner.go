package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/keyturn/keyturn/internal/rotation"
)

// attributes are whose a file is and who may read it.
type attributes struct {
	uid, gid int
	mode     fs.FileMode
}

// apply gives the attributes to an open file. It changes the owner only where
// that is another one, since few may.
func (a attributes) apply(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if uid, gid := ownerOf(fi); uid != a.uid || gid != a.gid {
		if err := f.Chown(a.uid, a.gid); err != nil {
			return rotation.Classify(rotation.Failed, "run as root, or as the user that reads the files", err)
		}
	}
	return f.Chmod(a.mode)
}

// An ownership is whose the files of a new version will be.
type ownership struct {
	wanted   owner
	fallback attributes            // for what is not wanted and was not there
	before   map[string]attributes // of the files that applications read now
}

// ownership returns what the files of the next version get: what placements
// say, else what the files that applications read now have, else our user and 0400.
func (t *Target) ownership(h *home) (ownership, error) {
	wanted, err := t.owner(h.credential)
	if err != nil {
		return ownership{}, err
	}
	o := ownership{wanted: wanted, before: map[string]attributes{},
		fallback: attributes{uid: os.Geteuid(), gid: os.Getegid(), mode: 0o400}}
	current, err := h.link(currentLink)
	if err != nil {
		return o, err
	}
	if current == "" {
		current = "." // plain files, if there are any
	}
	dir, err := h.openPlace(place{dir: current})
	if err != nil {
		return o, fmt.Errorf("looking at whose the current files are: %w", err)
	}
	defer func() { _ = dir.Close() }()
	files, err := fieldFiles(dir, current == ".")
	if err != nil {
		return o, err
	}
	for i, fi := range files {
		a := attributes{mode: fi.Mode().Perm()&0o444 | 0o400}
		a.uid, a.gid = ownerOf(fi)
		o.before[fi.Name()] = a
		if i == 0 { // a field that is new is like the others
			o.fallback = a
		}
		if a.mode < o.fallback.mode {
			o.fallback.mode = a.mode
		}
	}
	return o, nil
}

// file returns the attributes of the file of a field.
func (o ownership) file(field string) attributes {
	a, ok := o.before[field]
	if !ok {
		a = o.fallback
	}
	if o.wanted.uid != nil {
		a.uid = *o.wanted.uid
	}
	if o.wanted.gid != nil {
		a.gid = *o.wanted.gid
	}
	if o.wanted.mode != nil {
		a.mode = *o.wanted.mode
	}
	return a
}

// directory gives a version directory to the owner of its files, closes it to
// whoever reads none of them, and makes it durable.
func (o ownership) directory(dir *os.Root) (err error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	a := o.file("")
	for i, e := range entries {
		file := o.file(e.Name())
		if i == 0 {
			a = file
		}
		if file.uid != a.uid || file.gid != a.gid {
			file.mode |= 0o004 // more than one reader: all may enter, each reads its own
		}
		a.mode |= file.mode
	}
	a.mode = a.mode&0o444 | a.mode&0o444>>2
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := a.apply(f); err != nil {
		return err
	}
	return f.Sync()
}
