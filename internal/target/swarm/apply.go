package swarm

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// besideSuffix ends what dual mounts put beside the main version.
const (
	besideEnv  = "_NEW"
	besidePath = "_new"
)

// apply returns the view as it must be for the shifts of one service. What is
// not ours stays as it is and where it is; what reads right already is not
// touched, so that apply on its own result changes nothing. The order of
// entries is kept: Swarm takes another order for another spec, and would
// replace tasks that have the right one. In a stack, secrets that stand in the
// order of their names, as docker stack deploy puts them, still do afterwards, so
// that a deploy of the stack file finds the spec that it would make.
func apply(v view, shifts []rotation.Shift, base func(credential, field string) string) (view, error) {
	out := v.clone()
	for _, s := range shifts {
		b, err := beforeOf(s.Before)
		if err != nil {
			return v, err
		}
		e := edition{view: &out, shift: s, before: b, base: base, known: index(s), returns: returns(s)}
		e.back = e.goesBack()
		if err := e.apply(); err != nil {
			return v, fmt.Errorf("service %q: %w", s.Placement.Service, err)
		}
	}
	if v.Labels[stackLabel] != "" && slices.IsSortedFunc(v.Secrets, byName) && !reflect.DeepEqual(v.Secrets, out.Secrets) {
		slices.SortStableFunc(out.Secrets, byName)
	}
	return out, collision(out)
}

func byName(a, b *swarm.SecretReference) int { return strings.Compare(a.SecretName, b.SecretName) }

// collision finds two secrets at one path, which Swarm refuses to start.
func collision(v view) error {
	seen := map[string]string{}
	for _, ref := range v.Secrets {
		target := targetOf(ref)
		if other, ok := seen[target]; ok {
			return rotation.Errorf(rotation.Refused, "is the secret there that the record does not know one of this credential? Put the service right, or declare another path",
				"secrets %q and %q would both be mounted at %q", other, ref.SecretName, target)
		}
		seen[target] = ref.SecretName
	}
	return nil
}

// An edition applies one shift.
type edition struct {
	view   *view
	shift  rotation.Shift
	before *before
	base   func(credential, field string) string
	known  map[string]string // id or name of a secret of the credential → field
	back   bool              // the main version is the one before: everything as it was
	// returns: the service is taken back, and what somebody else put there stays.
	returns bool

	main, beside map[string]string // path → field, as declared
}

// index maps the ids and the names of every known object to their fields.
func index(s rotation.Shift) map[string]string {
	known := map[string]string{}
	versions := append(slices.Clone(s.Known), s.Main)
	if s.Beside != nil {
		versions = append(versions, *s.Beside)
	}
	for _, v := range versions {
		for field, o := range v.Objects {
			known["name "+o.Name] = field
			if o.ID != "" {
				known["id "+o.ID] = field
			}
		}
	}
	return known
}

// fieldIn returns the field that a reference holds, if it is in the index.
func fieldIn(known map[string]string, ref *swarm.SecretReference) (string, bool) {
	if field, ok := known["id "+ref.SecretID]; ok {
		return field, true
	}
	field, ok := known["name "+ref.SecretName]
	return field, ok
}

// foreign returns a view without anything that may be ours, whatever version it
// is of.
func foreign(v view, shifts []rotation.Shift) view {
	out := v.clone()
	for _, s := range shifts {
		for _, names := range []map[string]string{s.Placement.File, s.Placement.Env} {
			for name := range names {
				out.unset(name)
				out.unset(name + besideEnv)
			}
		}
		known := index(s)
		out.Secrets = slices.DeleteFunc(out.Secrets, func(ref *swarm.SecretReference) bool {
			_, ours := fieldIn(known, ref)
			return ours
		})
	}
	return out
}

// returns reports whether a shift takes the service back: from a newer version
// that it may be found on, with nothing beside.
func returns(s rotation.Shift) bool {
	return s.Beside == nil && slices.ContainsFunc(s.Known, func(v rotation.Version) bool { return v.Number > s.Main.Number })
}

// goesBack reports whether the main version is the one that the service read
// before the rotation.
func (e *edition) goesBack() bool {
	if e.before == nil || len(e.before.Secrets) == 0 {
		return false
	}
	objects := slices.Collect(maps.Values(e.shift.Main.Objects))
	for _, ref := range e.before.Secrets {
		if !slices.ContainsFunc(objects, func(o rotation.Object) bool { return same(ref, o) }) {
			return false
		}
	}
	return true
}

// same reports whether a reference names an object.
func same(ref *swarm.SecretReference, o rotation.Object) bool {
	return o.ID != "" && ref.SecretID == o.ID || o.ID == "" && ref.SecretName == o.Name
}

func (e *edition) apply() error {
	e.main, e.beside = map[string]string{}, map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(e.shift.Placement.File)) {
		if err := e.file(name, e.shift.Placement.File[name]); err != nil {
			return err
		}
	}
	for _, at := range slices.Sorted(maps.Keys(e.shift.Placement.Path)) {
		if err := e.declare(path.Clean(at), e.shift.Placement.Path[at]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.shift.Placement.Env)) {
		if err := e.public(name, e.shift.Placement.Env[name]); err != nil {
			return err
		}
	}
	if err := e.replace(); err != nil {
		return err
	}
	return e.add()
}

// declare notes that a field is mounted at a path.
func (e *edition) declare(at, field string) error {
	if other, ok := e.main[at]; ok && other != field {
		// The path may come from a variable in which a value stands.
		return rotation.Errorf(rotation.Invalid, "give each field a path of its own",
			"fields %q and %q would both be mounted at one path", other, field)
	}
	e.main[at], e.beside[at+besidePath] = field, field
	return nil
}

// file sets a variable that holds the path of a field. The path never changes.
func (e *edition) file(name, field string) error {
	at, ok := e.view.env(name)
	was, wasThere := "", false
	if e.before != nil {
		was, wasThere = e.before.Env[name]
	}
	switch {
	case ok && at != "":
	case wasThere:
		at = was
	default:
		at = path.Join(secretDir, e.base(e.shift.Placement.Credential, field))
	}
	if !path.IsAbs(at) {
		if e.returns {
			return nil // somebody else's by now
		}
		// What stands there may be the value itself: it is not repeated.
		return rotation.Errorf(rotation.Invalid, "file: is for variables that hold the path of a mounted secret",
			"the variable %q holds no absolute path", name)
	}
	clean := path.Clean(at)
	if err := e.declare(clean, field); err != nil {
		return err
	}
	if e.back && !e.before.had(name) {
		e.view.unset(name)
	} else {
		e.view.set(name, at)
	}
	switch now, _ := e.view.env(name + besideEnv); {
	case e.shift.Beside != nil:
		e.view.set(name+besideEnv, clean+besidePath)
	case e.shift.Placement.Mounts == rotation.Dual, now == clean+besidePath:
		e.view.unset(name + besideEnv)
	}
	return nil
}

// public sets a variable that holds a field which is no secret.
func (e *edition) public(name, field string) error {
	value, ok := e.shift.Main.Public[field]
	was, wasThere := "", false
	if e.before != nil {
		was, wasThere = e.before.Env[name]
	}
	switch {
	case e.back && wasThere:
		e.view.set(name, was)
	case e.back:
		e.view.unset(name)
	case ok:
		e.view.set(name, value)
	default:
		return rotation.Errorf(rotation.Invalid, "is the field's name right?",
			"version %d of %q has no public field %q for the variable %q", e.shift.Main.Number, e.shift.Main.Credential, field, name)
	}
	if e.shift.Beside != nil {
		next, ok := e.shift.Beside.Public[field]
		if !ok {
			return rotation.Errorf(rotation.Invalid, "is the field's name right?",
				"version %d of %q has no public field %q for the variable %q", e.shift.Beside.Number, e.shift.Main.Credential, field, name+besideEnv)
		}
		e.view.set(name+besideEnv, next)
	} else if e.shift.Placement.Mounts == rotation.Dual {
		e.view.unset(name + besideEnv)
	}
	return nil
}

// replace makes every reference of ours name the right object, at the path
// where it is, declared or not; those of a version beside that is gone go.
func (e *edition) replace() error {
	var kept []*swarm.SecretReference
	for _, ref := range e.view.Secrets {
		field, ours := fieldIn(e.known, ref)
		if !ours {
			kept = append(kept, ref)
			continue
		}
		at := targetOf(ref)
		version := &e.shift.Main
		if declared, ok := e.main[at]; ok {
			field = declared
		} else if declared, ok := e.beside[at]; ok {
			if e.shift.Beside == nil {
				continue
			}
			field, version = declared, e.shift.Beside
		}
		if version == &e.shift.Main && e.back {
			was := e.before.at(at)
			if was == nil && e.main[at] != "" {
				continue // we had added it
			}
			if was != nil {
				kept = append(kept, cloneRef(was))
				continue
			}
		}
		next, err := reference(*version, field, ref.File, at, e.shift.Placement)
		if err != nil {
			return err
		}
		kept = append(kept, next)
	}
	e.view.Secrets = kept
	return nil
}

// add mounts what is declared and not there.
func (e *edition) add() error {
	mount := func(v rotation.Version, at, field string, file *swarm.SecretReferenceFileTarget) error {
		if ref := e.view.at(at); ref != nil {
			if _, ours := fieldIn(e.known, ref); ours || e.returns {
				return nil
			}
		}
		ref, err := reference(v, field, file, at, e.shift.Placement)
		if err == nil {
			e.view.Secrets = append(e.view.Secrets, ref)
		}
		return err
	}
	for _, at := range slices.Sorted(maps.Keys(e.main)) {
		var file *swarm.SecretReferenceFileTarget
		was := e.before.at(at)
		if was == nil && e.back {
			continue
		}
		if was != nil {
			file = was.File
		}
		if err := mount(e.shift.Main, at, e.main[at], file); err != nil {
			return err
		}
	}
	if e.shift.Beside == nil {
		return nil
	}
	for _, at := range slices.Sorted(maps.Keys(e.beside)) {
		var file *swarm.SecretReferenceFileTarget
		if main := e.view.at(at[:len(at)-len(besidePath)]); main != nil && main.File != nil {
			f := *main.File
			f.Name = fileName(at)
			file = &f
		}
		if err := mount(*e.shift.Beside, at, e.beside[at], file); err != nil {
			return err
		}
	}
	return nil
}

// reference returns a reference to a field of a version, with the owner and
// mode of the one it replaces, unless the placement says otherwise.
func reference(v rotation.Version, field string, file *swarm.SecretReferenceFileTarget, at string, p rotation.Placement) (*swarm.SecretReference, error) {
	o, ok := v.Objects[field]
	if !ok || o.ID == "" {
		return nil, rotation.Errorf(rotation.Invalid, "declare every field that is mounted, or take its mount out of the service",
			"version %d of %q has no secret for field %q", v.Number, v.Credential, field)
	}
	out := swarm.SecretReferenceFileTarget{Name: fileName(at), UID: "0", GID: "0", Mode: 0o444}
	if file != nil {
		out = *file
	}
	if p.UID != nil {
		out.UID = *p.UID
	}
	if p.GID != nil {
		out.GID = *p.GID
	}
	if p.Mode != nil {
		out.Mode = *p.Mode & fs.ModePerm
	}
	return &swarm.SecretReference{SecretID: o.ID, SecretName: o.Name, File: &out}, nil
}
