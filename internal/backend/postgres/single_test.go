package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

// single is a fixture whose login's password is changed.
func single(t *testing.T, server *testserver.Postgres) *fixture {
	t.Helper()
	f := newFixture(t, server)
	f.settings = f.section(map[string]any{"admin": f.settings.Admin, "admin-password": map[string]any{"from-env": "ADMIN"},
		"role": f.role, "strategy": "single-role"})
	f.setup()
	return f
}

func (f *fixture) single() *postgres.Single {
	f.t.Helper()
	x, err := postgres.NewSingle(f.settings, f.options)
	if err != nil {
		f.t.Fatal(err)
	}
	return x
}

// turns are the settings of the other strategy.
func (f *fixture) turns() postgres.Settings {
	f.t.Helper()
	return f.section(map[string]any{"admin": f.settings.Admin, "admin-password": map[string]any{"from-env": "ADMIN"}, "role": f.role})
}

// alternating is a backend of the other strategy, without a set-up of its own.
func (f *fixture) alternating() *postgres.Backend {
	f.t.Helper()
	b, err := postgres.New(f.turns(), f.options)
	f.must(err)
	return b
}

// TestContractSingle is the contract with one login: from none that works, as
// where nothing is adopted.
func TestContractSingle(t *testing.T) {
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		f := single(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
		f.exec(f.database, fmt.Sprintf("alter role %s nologin password null", f.role))
		f.options.Patience = 3 * time.Second
		setup := f.contract(f.single())
		delete(setup.Break, "paused") // is TestContract's
		setup.Claims = &rotationtest.Claims{Kind: "PostgreSQL: one login", Page: "postgres.md#one-login-that-cannot-be-two",
			Dead: "another verifier is stored, `28P01` on the primary, every replica and through the pooler"}
		return setup
	})
}

// staged is a version of a single login that was staged.
func (f *fixture) staged(x *postgres.Single, n int, others ...rotation.Version) (rotation.Version, rotation.Material) {
	f.t.Helper()
	ctx := context.Background()
	v, err := x.Identify(ctx, version(n), others)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := x.Draft(v)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := x.Arm(ctx, v, m, time.Time{}); err != nil {
		f.t.Fatal(err)
	}
	return v, m
}

// switched goes from the login's own password to that of version 2.
func (f *fixture) switched(x *postgres.Single) (v1, v2 rotation.Version, m2 rotation.Material) {
	f.t.Helper()
	v1 = rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role}
	v2, m2 = f.staged(x, 2, v1)
	f.must(x.Activate(context.Background(), v2))
	return v1, v2, m2
}

func (f *fixture) answer(x *postgres.Single, v rotation.Version, m rotation.Material, want rotation.Answer) {
	f.t.Helper()
	if got := postgres.Login(context.Background(), x.ProbeSpec(v), m); got.Answer != want {
		f.t.Fatalf("logging in with version %d = %s (%s), want %s", v.Number, got.Answer, got.Reason, want)
	}
}

// withoutProbes leaves out the sessions of probes, whose end a busy server notices late.
func withoutProbes(uses []rotation.Use) []rotation.Use {
	return slices.DeleteFunc(uses, func(u rotation.Use) bool { return u.Name == "keyturn-probe" })
}

func (f *fixture) status(x *postgres.Single, v rotation.Version, want rotation.Status, uses int) rotation.Standing {
	f.t.Helper()
	st, err := x.Observe(context.Background(), v)
	if err != nil {
		f.t.Fatal(err)
	}
	if st.Uses = withoutProbes(st.Uses); st.Status != want || len(st.Uses) != uses {
		f.t.Fatalf("Observe(version %d) = %s with %d uses (%s), want %s with %d", v.Number, st.Status, len(st.Uses), st.Detail, want, uses)
	}
	return st
}

// A login that services use becomes version 1 as it is. Its old password is kept
// for the way back, and dead after its end; the sessions of each version are told
// apart by when they began.
func TestSingleLife(t *testing.T) {
	f := single(t, shared.Get(t))
	x, ctx := f.single(), context.Background()
	if err := x.Preflight(ctx, rotation.Credential{Name: "orders-db"}); err != nil {
		t.Fatal(err)
	}
	v1, err := x.Adopt(ctx, rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role})
	if err != nil {
		t.Fatal(err)
	}
	old := material(oldPassword)
	early := f.session(v1, old)
	f.status(x, v1, rotation.Armed, 1)
	v2, m2 := f.staged(x, 2, v1)
	f.status(x, v1, rotation.Armed, 1)
	f.status(x, v2, rotation.Staged, 0)
	f.answer(x, v1, old, rotation.Alive)

	if err := x.Activate(ctx, v2); err != nil {
		t.Fatal(err)
	}
	f.answer(x, v1, old, rotation.Dead)
	f.answer(x, v2, m2, rotation.Alive)
	late := f.session(v2, m2)
	f.status(x, v1, rotation.Staged, 1)
	f.status(x, v2, rotation.Armed, 1)

	if err := x.Activate(ctx, v1); err != nil { // the way back
		t.Fatal(err)
	}
	f.answer(x, v1, old, rotation.Alive)
	if err := x.End(ctx, v2, rotation.ToDiscard); err != nil {
		t.Fatal(err)
	}
	if late() || !early() {
		t.Errorf("the session of version 2 lives: %v, that of version 1: %v, want only the latter", late(), early())
	}
	f.status(x, v2, rotation.Ended, 0)

	v3, m3 := f.staged(x, 3, v1)
	if err := x.Activate(ctx, v3); err != nil {
		t.Fatal(err)
	}
	now := f.session(v3, m3)
	if err := x.End(ctx, v1, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	if early() || !now() {
		t.Errorf("the session of version 1 lives: %v, that of version 3: %v, want only the latter", early(), now())
	}
	f.status(x, v1, rotation.Ended, 0)
	f.answer(x, v1, old, rotation.Dead)
	f.answer(x, v3, m3, rotation.Alive)
	if got := f.text("select string_agg(version || ' ' || (verifier is not null), ', ' order by version) from keyturn.held where login = $1", f.role); got != "1 false, 2 false, 3 true" {
		t.Errorf("verifiers are kept of %s, want of version 3 alone", got)
	}
	if err := x.Activate(ctx, v1); rotation.ClassOf(err) != rotation.Refused {
		t.Errorf("Activate of an ended version = %v, want refused", err)
	}
}

// A crash between drafting and staging ends a number that nothing is known of:
// what services use is untouched.
func TestSingleBurntBeforeStaging(t *testing.T) {
	f := single(t, shared.Get(t))
	x, ctx := f.single(), context.Background()
	v1 := rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role}
	v2, err := x.Identify(ctx, version(2), []rotation.Version{v1})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.End(ctx, v2, rotation.ToDiscard); err != nil {
		t.Fatal(err)
	}
	f.status(x, v1, rotation.Armed, 0)
	f.answer(x, v1, material(oldPassword), rotation.Alive)
	m, err := x.Draft(v2)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Arm(ctx, v2, m, time.Time{}); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "burnt") {
		t.Errorf("Arm of a number that was ended = %v, want refused", err)
	}
	v3, m3 := f.staged(x, 3, v1)
	if err := x.Activate(ctx, v3); err != nil {
		t.Fatal(err)
	}
	f.answer(x, v3, m3, rotation.Alive)
}

// Whoever changes the password by hand is noticed, and Activate puts the version back.
func TestSingleChangedByHand(t *testing.T) {
	f := single(t, shared.Get(t))
	x, ctx := f.single(), context.Background()
	_, v2, m2 := f.switched(x)
	f.exec(f.database, fmt.Sprintf("alter role %s password 'by hand'", f.role))
	if st := f.status(x, v2, rotation.Staged, 0); !strings.Contains(st.Detail, "somebody has changed") {
		t.Errorf("Observe says %q, want that somebody changed the password", st.Detail)
	}
	if err := x.Activate(ctx, v2); err != nil {
		t.Fatal(err)
	}
	f.answer(x, v2, m2, rotation.Alive)
	f.exec(f.database, fmt.Sprintf("alter role %s nologin", f.role))
	if st := f.status(x, v2, rotation.Staged, 0); !strings.Contains(st.Detail, "NOLOGIN") {
		t.Errorf("Observe says %q, want NOLOGIN", st.Detail)
	}
}

// What stands in the way is told, each with what mends it.
func TestSingleRefusals(t *testing.T) {
	ctx := context.Background()
	adopted := rotation.Version{Credential: "orders-db", Number: 1}
	for name, c := range map[string]struct {
		break_     func(f *fixture)
		do         func(x *postgres.Single) error
		says, hint string
	}{
		"pg_authid is closed": {
			func(f *fixture) {
				f.exec(f.database, "revoke select (oid, rolpassword) on pg_authid from keyturn_owner")
			},
			func(x *postgres.Single) error { return x.Preflight(ctx, rotation.Credential{Name: "orders-db"}) },
			"cannot be read", "alternating"},
		"nobody adopted it": {func(*fixture) {},
			func(x *postgres.Single) error { _, err := x.Identify(ctx, version(1), nil); return err },
			"may log in already", "adopt"},
		"the set-up is the other strategy's": {
			func(f *fixture) { f.exec(f.database, "update keyturn.managed set single = false") },
			func(x *postgres.Single) error { return x.Preflight(ctx, rotation.Credential{Name: "orders-db"}) },
			"was not made for strategy: single-role", "keyturn setup postgres"},
		"another credential holds it": {
			func(f *fixture) {
				f.exec(f.database, fmt.Sprintf("insert into keyturn.held (login, credential, version, active) values ('%s', 'other', 4, true)", f.role))
			},
			func(x *postgres.Single) error { return x.Preflight(ctx, rotation.Credential{Name: "orders-db"}) },
			`version 4 of "other"`, "two credentials"},
		"another journal rotated it": {
			func(f *fixture) {
				f.exec(f.database, fmt.Sprintf("insert into keyturn.held (login, credential, version, active) values ('%s', 'orders-db', 4, true)", f.role))
			},
			func(x *postgres.Single) error { _, err := x.Adopt(ctx, adopted); return err },
			"rotated before", "find that journal"},
		"a third version": {
			func(f *fixture) { f.staged(f.single(), 2, adopted) },
			func(x *postgres.Single) error {
				_, err := x.Identify(ctx, version(3), []rotation.Version{adopted, version(2)})
				return err
			},
			"still holds version 2", "cleanup"},
		"a login of the other strategy": {func(*fixture) {},
			func(x *postgres.Single) error {
				v := version(2)
				v.Identity = "orders_a"
				_, err := x.Observe(ctx, v)
				return err
			}, `version 2 is the login "orders_a"`, "between two rotations"},
	} {
		t.Run(name, func(t *testing.T) {
			server := shared.Get(t)
			if name == "pg_authid is closed" {
				server = testserver.NewPostgres(t, testserver.PostgresOptions{})
			}
			f := single(t, server)
			c.break_(f)
			err := c.do(f.single())
			if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), c.says) || !strings.Contains(rotation.HintOf(err), c.hint) {
				t.Errorf("= %v (%s) of class %d, want refused with %q and the hint %q", err, rotation.HintOf(err), rotation.ClassOf(err), c.says, c.hint)
			}
		})
	}
}

// The gap is left behind by changing the strategy between two rotations: the
// single login is adopted by logins that take turns. There is no way back, and
// none under an open rotation.
func TestSingleBecomesAlternating(t *testing.T) {
	f := single(t, shared.Get(t))
	x, ctx := f.single(), context.Background()
	v1, v2, m2 := f.switched(x)
	if err := f.alternating().Preflight(ctx, rotation.Credential{Name: "orders-db"}); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "not made for strategy: alternating") {
		t.Errorf("Preflight of the other strategy = %v, want refused", err)
	}
	one := f.settings
	f.settings = f.turns()
	if err := f.trySetup(); err == nil || !strings.Contains(err.Error(), "not at its end") {
		t.Fatalf("the set-up amid a rotation = %v, want a refusal", err)
	}
	if err := x.End(ctx, v1, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	f.setup()
	b := f.backend()
	if got := f.standing(b, v2); got.Status != rotation.Armed {
		t.Fatalf("the single login is %s (%s), want armed", got.Status, got.Detail)
	}
	v3, m3 := f.prepared(b, 3, v2)
	if v3.Identity != f.role+"_a" {
		t.Errorf("the next login is %q, want %s_a", v3.Identity, f.role)
	}
	if err := b.End(ctx, v2, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	if r := f.probe(b, v2, m2); r.Answer != rotation.Dead {
		t.Errorf("the single login is %s after its end, want dead", r.Answer)
	}
	if r := f.probe(b, v3, m3); r.Answer != rotation.Alive {
		t.Errorf("the next login is %s (%s), want alive", r.Answer, r.Reason)
	}
	f.settings = one
	if err := f.trySetup(); err == nil || !strings.Contains(err.Error(), "armed") {
		t.Errorf("the set-up of a single login under logins in turn = %v, want a refusal", err)
	}
}

// A standby knows of the change before the cutover goes on, and the sessions there
// are told apart as well.
func TestSingleStandby(t *testing.T) {
	f := single(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
	standby := f.withStandby(t)
	x, ctx := f.single(), context.Background()
	v1 := rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // until the standby has the set-up
		if _, err := x.Observe(ctx, v1); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	v2, m2 := f.staged(x, 2, v1)
	conn, err := standby.Connect(ctx, f.role, oldPassword, f.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := x.Activate(ctx, v2); err != nil {
		t.Fatal(err)
	}
	f.answer(x, v2, m2, rotation.Alive) // at both hosts
	f.answer(x, v1, material(oldPassword), rotation.Dead)
	f.status(x, v1, rotation.Staged, 1)
	if err := x.End(ctx, v1, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	if conn.Ping(ctx) == nil {
		t.Error("the session of version 1 on the standby lives on")
	}
}
