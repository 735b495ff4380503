package directory

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
)

// The names in a home that are not versions.
const (
	currentLink = "current"      // → the version that applications read
	nextLink    = "next"         // → the one beside it, with dual mounts
	restartDue  = ".restart-due" // a restart command has yet to run
)

// checkName refuses what is not a plain file name, so that no name leads
// anywhere, hides, or is taken for one of ours.
func checkName(what, name string) error {
	ok := len(name) > 0 && len(name) <= 128
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (letter || i > 0 && (c == '-' || c == '_' || c == '.'))
	}
	if !ok {
		return rotation.Errorf(rotation.Invalid, "use letters, digits, hyphens, underscores and dots, beginning with a letter or digit",
			"the name of %s %q cannot be the name of a file", what, name)
	}
	return nil
}

// versionName returns the name of the directory of a version that we made.
func versionName(number int) string { return "v" + strconv.Itoa(number) }

// ObjectNames returns the names of the files that a version will have.
func (t *Target) ObjectNames(v rotation.Version) []string {
	fields := slices.Concat(t.needed(v.Credential), t.Public[v.Credential])
	slices.Sort(fields)
	var names []string
	for _, f := range slices.Compact(fields) {
		names = append(names, path.Join(v.Credential, versionName(v.Number), f))
	}
	return names
}

// versionNumber returns the number of a version directory that we made.
func versionNumber(name string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "v"))
	return n, err == nil && n > 0 && versionName(n) == name
}

// nonceDigits is how many hexadecimal digits end a [temporary] name.
const nonceDigits = 16

// leftover matches what a killed Put, Move or Remove leaves in a home.
func leftover(name string) bool {
	stem := name[:max(0, len(name)-nonceDigits)]
	nonce := strings.TrimPrefix(name, stem)
	return strings.HasPrefix(stem, ".") && len(nonce) == nonceDigits && strings.Trim(nonce, "0123456789abcdef") == "" &&
		(strings.HasSuffix(stem, ".tmp-") || strings.HasSuffix(stem, ".gone-"))
}

// A place is where the fields of a version stand in its home: in the directory
// dir, one file per field. Dir is "." for a version that was adopted from
// plain files in the home itself.
type place struct {
	dir    string
	fields []string // that the record knows of; empty if it knows none
}

// plain reports whether the fields stand in the home itself.
func (p place) plain() bool { return p.dir == "." }

// placeOf returns the place of a version: what its objects say or, if it has
// none, that of a version of its number.
func placeOf(v rotation.Version) (place, error) {
	if err := checkName("credential", v.Credential); err != nil {
		return place{}, err
	}
	if v.Number < 1 {
		return place{}, rotation.Errorf(rotation.Invalid, "", "version numbers start at 1, not %d", v.Number)
	}
	if len(v.Objects) == 0 {
		return place{dir: versionName(v.Number)}, nil
	}
	p := place{fields: slices.Sorted(maps.Keys(v.Objects))}
	for _, field := range p.fields {
		dir, err := objectDir(v.Credential, field, v.Objects[field].Name)
		if err != nil {
			return place{}, err
		}
		if p.dir != "" && p.dir != dir {
			return place{}, rotation.Errorf(rotation.Invalid, "", "its objects stand in two directories, %q and %q", p.dir, dir)
		}
		p.dir = dir
	}
	return p, nil
}

// objectDir returns the directory, relative to the home, of an object of ours.
func objectDir(credential, field, name string) (string, error) {
	rest, inHome := strings.CutPrefix(name, credential+"/")
	dir, file := path.Split(rest)
	dir = path.Clean(dir)
	bad := !inHome || file != field || checkName("field", field) != nil || path.Join(credential, dir, file) != name
	if bad || dir != "." && (checkName("directory", dir) != nil || reserved(dir)) {
		return "", rotation.Errorf(rotation.Invalid, "", "the object %q of field %q is none of a directory target", name, field)
	}
	if dir == "." && (reserved(file) || isVersion(file)) {
		return "", rotation.Errorf(rotation.Invalid, "", "the object %q of field %q is none of a directory target", name, field)
	}
	return dir, nil
}

func reserved(name string) bool { return name == currentLink || name == nextLink }

func isVersion(name string) bool { _, ok := versionNumber(name); return ok }

// objects returns the objects of fields that stand at a place. The path below
// the root is name and id in one.
func objects(credential, dir string, fields []string) map[string]rotation.Object {
	m := make(map[string]rotation.Object, len(fields))
	for _, f := range fields {
		name := path.Join(credential, dir, f)
		m[f] = rotation.Object{ID: name, Name: name}
	}
	return m
}

// linked returns the place in the home that the text of a symlink names. A
// link that leads elsewhere is an error.
func linked(root, credential, link, text string) (string, error) {
	to := path.Join(credential, text)
	if path.IsAbs(text) {
		var below bool
		if to, below = strings.CutPrefix(path.Clean(text), root+"/"); !below {
			to = ".."
		}
	}
	if to == credential {
		return ".", nil
	}
	dir, inHome := strings.CutPrefix(to, credential+"/")
	if !inHome || checkName("directory", dir) != nil || reserved(dir) {
		return "", fmt.Errorf("the symlink %q leads to %q, which is no directory beside it", path.Join(credential, link), text)
	}
	return dir, nil
}
