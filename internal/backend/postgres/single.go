package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A Single rotates one login by changing its password (strategy: single-role):
// for applications that cannot log in by another name. The verifier of the next
// version is staged beside the one in use, in a table of the functions', and
// becomes the login's when it is activated; from then on the one before is
// refused. That is a gap, see [rotation.Gapped].
//
// What a login had before anything was staged is version 1. Which version a
// session belongs to is told by when it began: PostgreSQL does not say by which
// password somebody came in.
type Single struct {
	alike
	b *Backend
}

// alike is what of a [Backend] does not hang on the strategy.
type alike interface {
	rotation.Drafter
	rotation.Preflighter
	rotation.Locker
	rotation.Warner
	rotation.Examiner
	ProbeSpec(rotation.Version) rotation.ProbeSpec
}

// The interfaces that a Single fulfils. It is no Expirer: VALID UNTIL is the
// login's, not a password's.
var (
	_ rotation.Backend     = (*Single)(nil)
	_ rotation.Drafter     = (*Single)(nil)
	_ rotation.Gapped      = (*Single)(nil)
	_ rotation.Preflighter = (*Single)(nil)
	_ rotation.Locker      = (*Single)(nil)
	_ rotation.Adopter     = (*Single)(nil)
	_ rotation.Warner      = (*Single)(nil)
	_ rotation.Examiner    = (*Single)(nil)
)

// NewSingle returns a Single for settings that passed [Section] and say so.
func NewSingle(s Settings, o Options) (*Single, error) {
	b, err := New(s, o)
	if err != nil {
		return nil, err
	}
	if !b.settings.single() {
		return nil, rotation.Errorf(rotation.Invalid, "", "postgres: the strategy is %s", b.settings.Strategy)
	}
	return &Single{alike: b, b: b}, nil
}

// Gap implements [rotation.Gapped].
func (x *Single) Gap() string { return x.b.settings.Gap() }

// login is the one login.
func (x *Single) login() string { return x.b.settings.Role }

// view is the state of the login on the primary, of a cluster of which every host answered.
func (x *Single) view(ctx context.Context, doing string) (*cluster, state, error) {
	c, err := x.b.open(ctx)
	if err != nil {
		return nil, state{}, err
	}
	if err := c.everywhere(doing); err != nil {
		c.close()
		return nil, state{}, err
	}
	st, err := x.b.state(ctx, c.primary, x.login())
	if err != nil {
		c.close()
		return nil, state{}, joined(doing, []error{err})
	}
	return c, st, nil
}

// Identify checks that the login can take another version: no third one is held,
// and the one in use is on the record.
func (x *Single) Identify(ctx context.Context, next rotation.Version, others []rotation.Version) (rotation.Version, error) {
	c, st, err := x.view(ctx, "looking at the login")
	if err != nil {
		return next, err
	}
	defer c.close()
	if why := x.taken(st, next, others); why != "" {
		return next, rotation.Errorf(rotation.Refused, "cleanup ends a version that is held; what nobody adopted yet: keyturn adopt "+next.Credential,
			"postgres: login %q %s", x.login(), why)
	}
	return x.b.identified(next, x.login()), nil
}

// taken says why the login takes no other version, or "".
func (x *Single) taken(st state, next rotation.Version, others []rotation.Version) string {
	if !st.Exists {
		return "does not exist: run what `keyturn setup postgres` prints"
	}
	ours := func(h held) bool {
		return h.Credential == next.Credential && slices.ContainsFunc(others, func(v rotation.Version) bool { return v.Number == h.Version })
	}
	inUse := false
	for _, h := range st.Versions {
		inUse = inUse || h.Active
		switch {
		case h.Ended || h.is(next):
		case !ours(h):
			return fmt.Sprintf("holds %s, which is not on this record: somebody else rotates, or did", h.holder)
		case !h.Active:
			return fmt.Sprintf("still holds %s, which is not in use", h.holder)
		}
	}
	if !inUse && st.CanLogin && !slices.ContainsFunc(others, func(v rotation.Version) bool { return v.Number == 1 }) {
		return "may log in already, and that is no version on this record"
	}
	return ""
}

// Arm stages the version. It has no end of its own: nobody can log in with it.
func (x *Single) Arm(ctx context.Context, v rotation.Version, m rotation.Material, _ time.Time) error {
	doing := fmt.Sprintf("staging a password of login %q", x.login())
	made, err := Verifier(m["password"])
	if err != nil {
		return rotation.Classify(rotation.Invalid, "", fmt.Errorf("postgres: %s: %w", doing, err))
	}
	defer made.Wipe()
	c, st, err := x.change(ctx, doing, func(c *cluster) error {
		x.b.silence(ctx, c.primary)
		_, err := c.primary.conn.Exec(ctx, "select "+x.b.function("stage")+"($1::text, $2::text, $3::text, $4::int)",
			x.login(), string(made.Reveal()), v.Credential, v.Number)
		return err
	})
	if err != nil {
		return err
	}
	defer c.close()
	if h, ok := st.of(v); !ok || h.Ended {
		return rotation.Errorf(rotation.Failed, "", "postgres: %s: it does not read back", doing)
	}
	return nil
}

// change runs a function on the primary, and returns when every standby says of
// the login what the primary says then.
func (x *Single) change(ctx context.Context, doing string, call func(*cluster) error) (*cluster, state, error) {
	c, err := x.b.open(ctx)
	if err != nil {
		return nil, state{}, err
	}
	var st state
	err = c.everywhere(doing)
	if err == nil {
		err = x.b.retried(ctx, func() error { return wrap(c.primary.name, call(c)) })
	}
	if err == nil {
		st, err = x.b.state(ctx, c.primary, x.login())
	}
	if err == nil {
		err = x.b.replayed(ctx, c, st)
	}
	if err != nil {
		c.close()
		return nil, st, joined(doing, []error{err})
	}
	return c, st, nil
}

// Activate makes the version's password the login's, on every host.
func (x *Single) Activate(ctx context.Context, v rotation.Version) error {
	doing := fmt.Sprintf("changing the password of login %q", x.login())
	c, st, err := x.change(ctx, doing, func(c *cluster) error {
		_, err := c.primary.conn.Exec(ctx, "select "+x.b.function("activate")+"($1::text, $2::text, $3::int)", x.login(), v.Credential, v.Number)
		return err
	})
	if err != nil {
		return err
	}
	defer c.close()
	if s := x.standing(st, v); s.Status != rotation.Armed && s.Status != rotation.Expiring {
		return rotation.Errorf(rotation.Failed, "", "postgres: %s: version %d reads back as %s: %s", doing, v.Number, s.Status, s.Detail)
	}
	_, err = c.primary.conn.Exec(ctx, "select "+x.b.function("activated")+"($1::text)", x.login())
	return joined(doing, []error{wrap(c.primary.name, err)})
}

// Observe asks every host. A version whose verifier is kept, and is not the
// login's, is Staged.
func (x *Single) Observe(ctx context.Context, v rotation.Version) (rotation.Standing, error) {
	doing := fmt.Sprintf("observing login %q", x.login())
	if v.Identity == "" {
		return rotation.Standing{Status: rotation.Absent, Detail: "no login was chosen"}, nil
	}
	if v.Identity != x.login() {
		return rotation.Standing{}, rotation.Errorf(rotation.Refused, "a strategy is changed between two rotations; write the one back that version "+
			fmt.Sprint(v.Number)+" was made by", "postgres: %s: version %d is the login %q", doing, v.Number, v.Identity)
	}
	c, st, err := x.view(ctx, doing)
	if err != nil {
		return rotation.Standing{}, err
	}
	defer c.close()
	if err := x.b.replayed(ctx, c, st); err != nil {
		return rotation.Standing{}, err
	}
	standing := x.standing(st, v)
	if standing.Status == rotation.Absent {
		return standing, nil
	}
	sessions, err := x.sessions(ctx, c, st, v)
	if err != nil {
		return rotation.Standing{}, joined(doing, []error{err})
	}
	for _, s := range sessions {
		standing.Uses = append(standing.Uses, s.use())
	}
	return standing, nil
}

// of returns what is held of a version.
func (s state) of(v rotation.Version) (held, bool) {
	i := slices.IndexFunc(s.Versions, func(h held) bool { return h.is(v) })
	if i < 0 {
		return held{}, false
	}
	return s.Versions[i], true
}

// before reports whether the version is what the login had before anything was staged.
func (s state) before(v rotation.Version) bool {
	_, known := s.of(v)
	return v.Number == 1 && !known && s.CanLogin && (s.Password == nil || *s.Password) &&
		!slices.ContainsFunc(s.Versions, func(h held) bool { return h.Active })
}

// standing judges the state of the login for a version.
func (x *Single) standing(st state, v rotation.Version) rotation.Standing {
	h, ok := st.of(v)
	switch {
	case !st.Exists:
		return rotation.Standing{Status: rotation.Absent, Detail: "no such login"}
	case !ok && !st.before(v):
		return rotation.Standing{Status: rotation.Absent, Detail: "no password was staged for it"}
	case h.Ended:
		return rotation.Standing{Status: rotation.Ended, Detail: "its password is not the login's, and its verifier is kept nowhere"}
	case ok && !h.Active:
		return rotation.Standing{Status: rotation.Staged, Detail: "its verifier is kept; the login has another"}
	case h.Same != nil && !*h.Same:
		return rotation.Standing{Status: rotation.Staged, Detail: "somebody has changed the login's password since"}
	case !st.CanLogin || st.Expired:
		return rotation.Standing{Status: rotation.Staged, Detail: "somebody has kept the login out since: " + x.b.describe(st)}
	case !st.until().IsZero():
		return rotation.Standing{Status: rotation.Expiring, Until: st.until(), Detail: x.b.describe(st)}
	}
	return rotation.Standing{Status: rotation.Armed, Detail: x.b.describe(st)}
}

// End forgets the version's verifier and ends the sessions that may have come in
// by it. Of the version in use, the login is disarmed.
func (x *Single) End(ctx context.Context, v rotation.Version, _ rotation.Why) error {
	doing := fmt.Sprintf("ending version %d of login %q", v.Number, x.login())
	if v.Identity == "" {
		return nil
	}
	c, err := x.b.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	err = x.b.retried(ctx, func() error {
		_, err := c.primary.conn.Exec(ctx, "select "+x.b.function("unstage")+"($1::text, $2::text, $3::int)", x.login(), v.Credential, v.Number)
		return wrap(c.primary.name, err)
	})
	if err != nil {
		return joined(doing, []error{err})
	}
	st, err := x.b.state(ctx, c.primary, x.login())
	if err != nil {
		return joined(doing, []error{err})
	}
	strike := func(ctx context.Context) ([]session, error) { return x.strike(ctx, c, st, v) }
	return joined(doing, []error{x.b.replayed(ctx, c, st), x.b.drained(ctx, c, x.login(), strike), c.everywhere(doing)})
}

// strike tells the sessions of a version to end, and returns them.
func (x *Single) strike(ctx context.Context, c *cluster, st state, v rotation.Version) ([]session, error) {
	ctx, cancel := context.WithTimeout(ctx, x.b.options.Patience)
	defer cancel()
	found, err := x.sessions(ctx, c, st, v)
	errs := []error{err}
	for _, s := range found {
		_, err := c.at(s.server).conn.Exec(ctx, "select "+x.b.function("cut")+"($1::text, $2::int, $3::timestamptz)", x.login(), s.PID, s.Since)
		errs = append(errs, wrap(s.server, err))
	}
	return found, errors.Join(errs...)
}

// clocks is how much the clocks of two hosts may differ after their skew was taken out.
const clocks = time.Second

// sessions returns those sessions of the login, on every host, that may have come
// in by a version's password: it was the login's at some moment between their
// beginning and the end of their authentication.
func (x *Single) sessions(ctx context.Context, c *cluster, st state, v rotation.Version) ([]session, error) {
	all, err := x.b.everySession(ctx, c, x.login())
	return slices.DeleteFunc(all, func(s session) bool {
		began, margin := s.Since, time.Duration(0)
		if at := c.at(s.server); at != c.primary {
			began, margin = began.Add(c.primary.skew-at.skew), clocks
		}
		return !st.mayBe(v, began, margin)
	}), err
}

// mayBe reports whether a session that began then may be of the version.
func (s state) mayBe(v rotation.Version, began time.Time, margin time.Duration) bool {
	if len(s.Turns) == 0 {
		return s.before(v)
	}
	for i, t := range s.Turns {
		over := i+1 < len(s.Turns) && !s.Turns[i+1].Since.IsZero() && !began.Add(-margin).Before(s.Turns[i+1].Since)
		if t.Credential == v.Credential && t.Version == v.Number && !began.Add(margin).Before(t.Began) && !over {
			return true
		}
	}
	return false
}

// checkMade refuses a set-up that was made for the other strategy.
func (b *Backend) checkMade(ctx context.Context, s *server, managed bool) error {
	single := b.settings.single()
	switch {
	case !managed && single:
		return rotation.Errorf(rotation.Refused, hintOf(codeUnmanaged), "%s: login %q is not on the list of logins that Keyturn may touch", s.name, b.settings.Role)
	case !managed: // a role that nobody logs in as
		return nil
	}
	st, err := b.state(ctx, s, b.settings.Role)
	if err == nil && st.Single != single {
		err = rotation.Errorf(rotation.Refused, "run what `keyturn setup postgres` prints again",
			"%s: the set-up of %q was not made for strategy: %s", s.name, b.settings.Role, b.settings.Strategy)
	}
	return err
}

// checkSingle judges the login, and whether what it has now can be kept for a way back.
func (b *Backend) checkSingle(ctx context.Context, s *server, cred rotation.Credential) error {
	st, err := b.state(ctx, s, b.settings.Role)
	switch {
	case err != nil:
		return err
	case st.Password == nil && st.before(rotation.Version{Credential: cred.Name, Number: 1}):
		return rotation.Errorf(rotation.Refused, hintOf(codeUnread), "%s: the verifier of %q cannot be read (pg_authid): there would be no way back to it", s.name, st.Login)
	}
	for _, h := range st.Versions {
		if h.Credential != cred.Name && !h.Ended {
			return rotation.Errorf(rotation.Refused, "two credentials cannot share a login", "%s: login %q holds %s", s.name, st.Login, h.holder)
		}
	}
	return nil
}

// Adopt checks that the login's password can be changed: what services use today
// is version 1. Nothing of theirs changes but the password. It reads only.
func (x *Single) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	doing := fmt.Sprintf("adopting login %q", x.login())
	c, st, err := x.view(ctx, doing)
	if err != nil {
		return v, err
	}
	defer c.close()
	for _, s := range c.servers {
		if err := checkServer(s); err != nil {
			return v, joined(doing, []error{err})
		}
	}
	for _, check := range []func() error{
		func() error { return x.b.checkFunctions(ctx, c.primary) },
		func() error { return x.b.checkAdopted(ctx, c.primary) },
		func() error { return x.b.checkSingle(ctx, c.primary, rotation.Credential{Name: v.Credential}) },
		func() error { return x.unheld(c.primary.name, st) },
		func() error { return x.b.agrees(v) },
	} {
		if err := check(); err != nil {
			return v, joined(doing, []error{err})
		}
	}
	x.b.mentionClients(ctx, c)
	return x.b.identified(v, x.login()), nil
}

// unheld refuses to adopt what an earlier record rotated: its numbers are burnt.
func (x *Single) unheld(host string, st state) error {
	if len(st.Versions) == 0 {
		return nil
	}
	return rotation.Errorf(rotation.Refused, fmt.Sprintf("find that journal; to begin anew without it, run DELETE FROM %[1]s.held WHERE login = '%[2]s'; DELETE FROM %[1]s.turns WHERE login = '%[2]s'",
		x.b.settings.Schema, st.Login), "%s: %q was rotated before, by a journal that is not this one (%s)", host, st.Login, st.Versions[len(st.Versions)-1].holder)
}
