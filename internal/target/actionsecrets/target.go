// Package actionsecrets keeps a credential in secrets of GitHub: of Actions or of
// Dependabot, of a repository, an environment or an organisation.
//
// A secret holds one value, and nobody can read it. So to put a version is the
// cutover, there is no way back but forward, and a job that begins between the
// overwriting and the arming of the new value fails: whoever uses this target accepts
// that gap. What a secret holds can be told by the time of its last change alone,
// which is on the record with the version.
//
// The value is sealed for the public key of the repository, environment or
// organisation (libsodium's sealed box) before it leaves the process. See GitHub's
// page "Encrypting secrets for the REST API".
package actionsecrets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A Place is where secrets are.
type Place struct {
	Owner, Repo  string // of the repository; with Organization, one of its own
	Environment  string // of the repository; "": the secrets are the repository's
	Organization string // whose secrets they are; "": a repository's
	Dependabot   bool   // instead of Actions

	// Repositories are all that may read an organisation's secrets, owner/name, where
	// they are selected.
	Repositories []string
}

// String is the place in words.
func (p Place) String() string {
	kind := "Actions"
	if p.Dependabot {
		kind = "Dependabot"
	}
	switch {
	case p.Organization != "":
		return kind + " secrets of the organisation " + p.Organization
	case p.Environment != "":
		return fmt.Sprintf("%s secrets of %s/%s, environment %s", kind, p.Owner, p.Repo, p.Environment)
	}
	return fmt.Sprintf("%s secrets of %s/%s", kind, p.Owner, p.Repo)
}

// right is the permission by which the secrets are read and changed.
func (p Place) right() string {
	switch {
	case p.Dependabot && p.Organization != "":
		return "organization_dependabot_secrets"
	case p.Dependabot:
		return "dependabot_secrets"
	case p.Organization != "":
		return "organization_secrets"
	case p.Environment != "":
		return "environments"
	}
	return "secrets"
}

// Options are what a [Target] needs.
type Options struct {
	Place
	App    *githubapp.App
	Names  map[string]map[string]string // credential → field → name of the secret
	Logger *slog.Logger                 // default: nowhere
}

// A Target is a place with secrets.
type Target struct{ Options }

// The interfaces that a Target fulfils.
var (
	_ rotation.Target      = (*Target)(nil)
	_ rotation.Preflighter = (*Target)(nil)
	_ rotation.Namer       = (*Target)(nil)
	_ rotation.Warner      = (*Target)(nil)
)

// New returns a Target. It does no I/O.
func New(o Options) (*Target, error) {
	if o.App == nil {
		return nil, errors.New("actionsecrets: nothing says as whom GitHub is asked")
	}
	if o.Dependabot && o.Environment != "" {
		return nil, rotation.Errorf(rotation.Invalid, "leave the environment out", "actionsecrets: Dependabot has no secrets of environments")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Target{o}, nil
}

// client returns GitHub with what is needed.
func (t *Target) client(level string) *githubapp.Client {
	return t.App.ClientNamed(map[string]string{t.right(): level}, t.Organization != "")
}

// Traits implements [rotation.Target].
func (t *Target) Traits() rotation.Traits {
	return rotation.Traits{OneVersion: true, Unprobeable: true}
}

// ObjectNames implements [rotation.Namer].
func (t *Target) ObjectNames(v rotation.Version) []string {
	return slices.Sorted(maps.Values(t.Names[v.Credential]))
}

// Preflight checks that the secrets can be changed, without changing one: the App or
// the token may, the place is there, and secrets of an organisation exist, for nobody
// but people can say which repositories may read them.
func (t *Target) Preflight(ctx context.Context, c rotation.Credential) error {
	granted, err := t.App.Granted(ctx)
	if err != nil {
		return wrap("looking at what the App may do", err)
	}
	if granted != nil && granted[t.right()] != "write" {
		return rotation.Errorf(rotation.Refused, "grant it: the App's page of settings, Permissions & events; then have the organisation accept it",
			"the App may not change the %s: it lacks %s: write", t.Place, strings.ReplaceAll(t.right(), "_", " "))
	}
	client := t.client("read")
	if _, err := t.publicKey(ctx, client); err != nil {
		return err
	}
	if t.Organization == "" {
		return nil
	}
	for _, name := range t.ObjectNames(rotation.Version{Credential: c.Name}) {
		if _, _, err := t.readers(ctx, client, name); err != nil {
			return err
		}
	}
	return nil
}

// Put seals and overwrites every secret of the credential. There is no going back: a
// failure between two of them is said, and put again. It returns the version with the
// time of the change of each as the id of its object.
func (t *Target) Put(ctx context.Context, v rotation.Version, m rotation.Material) (rotation.Version, error) {
	names := t.Names[v.Credential]
	for _, field := range slices.Sorted(maps.Keys(names)) {
		if value, ok := m[field]; !ok || value.Empty() {
			return v, rotation.Errorf(rotation.Invalid, "", "actionsecrets: version %d has no field %q", v.Number, field)
		} else if len(value.Reveal()) > maxSecret {
			return v, rotation.Errorf(rotation.Invalid, "", "actionsecrets: field %q is larger than %d bytes", field, maxSecret)
		}
	}
	client := t.client("write")
	key, err := t.publicKey(ctx, client)
	if err != nil {
		return v, err
	}
	v = v.Clone()
	v.Objects = map[string]rotation.Object{}
	for _, field := range slices.Sorted(maps.Keys(names)) {
		if err := rotation.CheckLease(ctx); err != nil {
			return v, err
		}
		if v.Objects[field], err = t.putOne(ctx, client, key, names[field], m[field]); err != nil {
			return v, fmt.Errorf("putting field %q: %w", field, err)
		}
	}
	return v, nil
}

// maxSecret is GitHub's limit of a secret, in bytes.
const maxSecret = 48 << 10

// Observe returns the secrets that were not changed since the version was put.
func (t *Target) Observe(ctx context.Context, v rotation.Version) (rotation.Holding, error) {
	h := rotation.Holding{Objects: map[string]rotation.Object{}}
	if len(v.Objects) == 0 {
		return h, nil
	}
	client := t.client("read")
	names := t.Names[v.Credential]
	for _, field := range slices.Sorted(maps.Keys(v.Objects)) {
		o := v.Objects[field]
		found, there, err := t.read(ctx, client, o.Name)
		if err != nil {
			return h, err
		}
		if there && (o.ID == "" || o.ID == found.UpdatedAt) {
			h.Objects[field] = o
		}
	}
	h.Complete = len(h.Objects) >= len(names)
	return h, nil
}

// Snapshot implements [rotation.Target]: no service is changed.
func (t *Target) Snapshot(context.Context, []rotation.Placement) (map[string]json.RawMessage, error) {
	return nil, nil
}

// Move implements [rotation.Target]: jobs read a secret when they begin.
func (t *Target) Move(context.Context, []rotation.Shift) (rotation.Report, error) {
	return rotation.Report{}, nil
}

// Remove implements [rotation.Target]: the value was overwritten by the next one.
func (t *Target) Remove(context.Context, rotation.Version) error { return nil }

// Orphans implements [rotation.Target]: a secret says nothing of who put it.
func (t *Target) Orphans(context.Context, string) ([]rotation.Orphan, error) { return nil, nil }

// Probe implements [rotation.Target]: nobody can read a secret to try it.
func (t *Target) Probe(context.Context, rotation.Version, rotation.ProbeSpec, rotation.Placement) rotation.ProbeResult {
	return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "write-only: a secret of GitHub cannot be read"}
}

// Adopt refuses: what a secret holds cannot be told.
func (t *Target) Adopt(context.Context, string) (rotation.Version, error) {
	return rotation.Version{}, rotation.Errorf(rotation.Refused, "begin with a rotation; what the secret holds now stays valid until somebody ends it",
		"a secret of GitHub cannot be read: there is nothing to adopt")
}

// Warnings implements [rotation.Warner].
func (t *Target) Warnings(_ context.Context, credential string) ([]string, error) {
	return []string{fmt.Sprintf("write-only: that the new value of %s works is seen by the next job that uses it, and by nobody before; there is no rollback",
		strings.Join(t.ObjectNames(rotation.Version{Credential: credential}), ", "))}, nil
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, cause) {
			return rotation.Errorf(rotation.Unknown, "", "%s: %w", doing, cause)
		}
	}
	class := rotation.Failed
	if githubapp.Unanswered(err) {
		class = rotation.Unknown
	}
	return rotation.Errorf(class, githubapp.Hint(err), "%s: %w", doing, err)
}

func notFound(err error) bool {
	refused, ok := errors.AsType[*github.ErrorResponse](err)
	return ok && refused.Response != nil && refused.Response.StatusCode == http.StatusNotFound
}
