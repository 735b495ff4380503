// Package directory is the target for one machine without a Swarm: a directory
// that applications mount or read.
//
// Under the root, every credential has a directory of its own, its home. In
// it, each version is a directory with one file per field, public fields too,
// and the symlink "current" names the version that applications read:
//
//	<root>/orders-db/v1/username
//	<root>/orders-db/v1/password
//	<root>/orders-db/v2/…
//	<root>/orders-db/current → v1
//
// A version is written beside its place and renamed into it, and it is taken
// away the same way, so that vN is whole or absent whatever is killed. The
// move is one rename of a symlink. An application opens "current" once and
// reads every field below what it opened; it never sees two versions mixed. It
// must have the home mounted, not a file or a version in it: a mounted file
// stays the one it was.
//
// Every file operation goes through [os.Root], names are checked, and a
// symlink where a file or a directory should be is an error, so that nothing
// planted in the tree leads out of it. Values are never read back but for the
// comparison in [Target.Put], inside [Target.Probe], and where [Target.Adopt]
// reads public fields. Removed files are unlinked and not
// overwritten: on the file systems of today that overwrites something else.
//
// Processes that change the same home keep each other out by a lock on it; who
// may rotate a credential is the lease's matter.
package directory

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

var (
	_ rotation.Target      = (*Target)(nil)
	_ rotation.Preflighter = (*Target)(nil)
)

// Options says what a [Target] works on.
type Options struct {
	// Root is the absolute path of the directory with the homes. It must
	// exist, and nobody but its owner may write to it.
	Root string

	// Placements says which fields of which credential the applications need,
	// and whose the files are. A credential without any has one reader, which
	// is called as the credential is, and needs every field.
	Placements []rotation.Placement

	// Public lists, by credential, the fields that are no secret.
	Public map[string][]string

	// Derived lists, by credential, those of Public that follow from others: a
	// version that is adopted need not have them.
	Derived map[string][]string

	// Restart holds, by credential, the command that makes applications which
	// read only at start read again. Most need none.
	Restart map[string]Restart

	// Logins returns the login of a backend by its name, or nil.
	Logins func(backend string) rotation.Login

	// Getenv looks up what the restart command inherits; nil means [os.Getenv].
	Getenv func(string) string
}

// A Restart is a command that is run after a move. It gets no value, neither
// as an argument nor in its environment, and what it prints is thrown away.
type Restart struct {
	Argv    []string      // the program and its arguments; there is no shell
	Timeout time.Duration // until it is killed; 0 means 2 minutes
}

// A Target is a directory with credentials. It is safe for concurrent use.
type Target struct {
	Options
	at func(point string) // told of each effect on the file system; tests only
}

// New returns a target for the options, or what is wrong with them. It does no I/O.
func New(o Options) (*Target, error) {
	if !filepath.IsAbs(o.Root) || filepath.Clean(o.Root) == "/" {
		return nil, rotation.Errorf(rotation.Invalid, "name a directory of its own, such as /srv/credentials",
			"directory target: root %q is not an absolute path below /", o.Root)
	}
	o.Root = filepath.Clean(o.Root)
	for _, p := range o.Placements {
		if err := checkPlacement(p); err != nil {
			return nil, err
		}
	}
	for credential, r := range o.Restart {
		if err := checkRestart(credential, r); err != nil {
			return nil, err
		}
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	t := &Target{Options: o, at: func(string) {}}
	for _, p := range o.Placements {
		if _, err := t.owner(p.Credential); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// checkRestart refuses a command that is none, or one that would be looked for
// elsewhere when it is run: commands run in the root directory.
func checkRestart(credential string, r Restart) error {
	if len(r.Argv) == 0 || r.Argv[0] == "" {
		return rotation.Errorf(rotation.Invalid, `give the program and its arguments, such as ["systemctl", "restart", "orders"]`,
			"directory target: the restart command of %q is empty", credential)
	}
	if strings.Contains(r.Argv[0], "/") && !filepath.IsAbs(r.Argv[0]) {
		return rotation.Errorf(rotation.Invalid, "give its absolute path, or a name that is on the PATH",
			"directory target: the restart command %q of %q is a relative path", r.Argv[0], credential)
	}
	return nil
}

// checkPlacement refuses what a directory cannot do.
func checkPlacement(p rotation.Placement) error {
	if err := checkName("credential", p.Credential); err != nil {
		return err
	}
	if len(p.Env) > 0 {
		names := slices.Sorted(maps.Keys(p.Env))
		return rotation.Errorf(rotation.Invalid, "let the application read every field from current/, so that it has one whole credential",
			"service %q of %q: a directory cannot set the variable %q", service(p), p.Credential, names[0])
	}
	for _, f := range readFields(p) {
		if err := checkName("field", f); err != nil {
			return err
		}
	}
	return nil
}

// Traits says that a directory holds versions side by side and can be probed.
func (*Target) Traits() rotation.Traits { return rotation.Traits{} }

// service returns the name of the reader that a placement stands for.
func service(p rotation.Placement) string { return cmp.Or(p.Service, p.Credential) }

// services returns the names of the readers of a credential, sorted.
func (t *Target) services(credential string) []string {
	var names []string
	for _, p := range t.Placements {
		if p.Credential == credential {
			names = append(names, service(p))
		}
	}
	if len(names) == 0 {
		return []string{credential}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// needed returns the fields that the readers of a credential need, sorted.
func (t *Target) needed(credential string) []string {
	var fields []string
	for _, p := range t.Placements {
		if p.Credential == credential {
			fields = append(fields, readFields(p)...)
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// readFields returns the fields that a placement reads.
func readFields(p rotation.Placement) []string {
	var fields []string
	for _, m := range []map[string]string{p.Env, p.File, p.Path} {
		fields = slices.AppendSeq(fields, maps.Values(m))
	}
	return fields
}

// An owner is whose the files of a version are; nil parts are taken from the
// version that is replaced.
type owner struct {
	uid, gid *int
	mode     *os.FileMode
}

// owner returns what the placements of a credential say of its files. They
// share one set of files, so they must agree.
func (t *Target) owner(credential string) (owner, error) {
	var o owner
	for _, p := range t.Placements {
		if p.Credential != credential {
			continue
		}
		uid, err := numeric(p, "uid", p.UID)
		if err != nil {
			return owner{}, err
		}
		gid, err := numeric(p, "gid", p.GID)
		if err != nil {
			return owner{}, err
		}
		if p.Mode != nil && (*p.Mode&^0o444 != 0 || *p.Mode&0o400 == 0) {
			return owner{}, rotation.Errorf(rotation.Invalid, "use 0400, 0440 or 0444",
				"service %q of %q: files of mode %04o are not read-only files that their owner reads", service(p), credential, *p.Mode)
		}
		if !agree(&o.uid, uid) || !agree(&o.gid, gid) || !agree(&o.mode, p.Mode) {
			return owner{}, rotation.Errorf(rotation.Invalid, "give all of them the same, or a group that they share and mode 0440",
				"the services of %q want different uid, gid or mode of the same files", credential)
		}
	}
	return o, nil
}

// agree sets *have to want where it is not set yet, and reports whether they
// are then the same, or nothing is wanted.
func agree[T comparable](have **T, want *T) bool {
	if want == nil {
		return true
	}
	if *have == nil {
		*have = want
	}
	return **have == *want
}

func numeric(p rotation.Placement, what string, s *string) (*int, error) {
	if s == nil {
		return nil, nil
	}
	n, err := strconv.Atoi(*s)
	if err != nil || n < 0 {
		return nil, rotation.Errorf(rotation.Invalid, "give the number: id -u, id -g", "service %q of %q: %s %q is not a number", service(p), p.Credential, what, *s)
	}
	return &n, nil
}

// about begins every error with what was done to what.
func about(doing string, v rotation.Version, err error) error {
	return fmt.Errorf("%s version %d of %q: %w", doing, v.Number, v.Credential, err)
}
