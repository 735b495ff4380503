package postgres_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

// releases are the machine's own PostgreSQL, and those whose rules are others.
var releases = []string{"", "14", "16", "18"}

// createRole is a fixture whose administrator has CREATEROLE and runs the set-up
// itself, once somebody gave it what the script's head asks for.
func createRole(t *testing.T, server *testserver.Postgres, more map[string]any) *fixture {
	t.Helper()
	f := newFixture(t, server)
	keys := map[string]any{"admin": f.settings.Admin, "admin-password": map[string]any{"from-env": "ADMIN"}, "role": f.role,
		"rights": "createrole", "allow-changed": []string{"pg-hba"}}
	for key, value := range more {
		keys[key] = value
	}
	f.settings = f.section(keys)
	f.exec(f.database, f.given()...)
	f.must(f.setUpItself())
	return f
}

// given is what the head of the script asks for, beside the role and its password.
func (f *fixture) given() (statements []string) {
	f.t.Helper()
	for line := range strings.Lines(postgres.Setup(f.settings, postgres.SetupInfo{})) {
		statement, ok := strings.CutPrefix(strings.TrimSpace(line), "--   GRANT ")
		if !ok || strings.Contains(statement, "ADMIN TRUE") && f.text("select current_setting('server_version_num')") < "160000" {
			continue
		}
		statements = append(statements, "GRANT "+statement)
	}
	if len(statements) < 2 {
		f.t.Fatalf("the head of the script asks for %q", statements)
	}
	return append(statements, "ALTER ROLE "+f.admin()+" CREATEROLE")
}

// named puts the fixture's names into a text.
func (f *fixture) named(text string) string {
	return strings.NewReplacer("$admin", f.admin(), "$role", f.role, "$database", f.database).Replace(text)
}

func (f *fixture) setUpItself() error {
	return f.try(f.server.URL(f.admin(), adminPassword, f.database), f.database, postgres.Setup(f.settings, postgres.SetupInfo{}))
}

// TestContractCreateRole is the contract where the administrator changes logins by
// a right of its own.
func TestContractCreateRole(t *testing.T) {
	server := testserver.NewPostgres(t, testserver.PostgresOptions{Release: "16"})
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		f := createRole(t, server, nil)
		setup := f.contract(f.backend(func(o *postgres.Options) { o.Patience = 3 * time.Second }))
		setup.Break = nil // what no answer means does not hang on the rights
		return setup
	})
}

// TestRotatesOnReleases adopts a login and rotates it, by each kind of rights and each
// strategy, on releases whose rules for roles are different.
func TestRotatesOnReleases(t *testing.T) {
	for _, release := range releases {
		t.Run("PostgreSQL "+release, func(t *testing.T) {
			server := testserver.NewPostgres(t, testserver.PostgresOptions{Release: release})
			if got := server.Version(); release != "" && !strings.HasPrefix(got, release+".") {
				t.Fatalf("the server is %s, want %s", got, release)
			}
			t.Run("functions", func(t *testing.T) {
				f := newFixture(t, server)
				f.setup()
				f.rotates()
			})
			t.Run("createrole", func(t *testing.T) {
				f := createRole(t, server, nil)
				f.must(f.setUpItself()) // again, too
				f.rotates()
				if got := f.text("select coalesce(string_agg(r.rolname, ' '), '') from pg_roles r where r.rolname like $1 || '%' and pg_has_role($2, r.oid, 'USAGE')", f.role, f.admin()); got != "" {
					t.Errorf("the administrator has the rights of %s, want of no login", got)
				}
			})
			t.Run("single-role", func(t *testing.T) { single(t, server).rotatesOne() })
			t.Run("single-role by createrole", func(t *testing.T) {
				f := createRole(t, server, map[string]any{"strategy": "single-role"})
				if _, err := f.single().Adopt(context.Background(), version(1)); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "pg_authid") {
					t.Fatalf("Adopt = %v, want refused: the old verifier cannot be kept", err)
				}
				f.exec(f.database, fmt.Sprintf("grant select (oid, rolpassword) on pg_authid to %s", f.admin()))
				f.rotatesOne()
			})
		})
	}
}

// rotates goes through the life of two versions of logins in turn.
func (f *fixture) rotates() {
	f.t.Helper()
	ctx := context.Background()
	b := f.backend()
	cred := rotation.Credential{Name: "orders-db"}
	f.must(b.Preflight(ctx, cred))
	last, err := b.Adopt(ctx, version(1))
	f.must(err)
	password := material(oldPassword)
	for n := 2; n <= 3; n++ {
		v, m := f.prepared(b, n, last)
		f.must(b.Expire(ctx, v, time.Time{}))
		f.must(b.Compare(ctx, v, last))
		old := f.session(last, password)
		for who, x := range map[string]struct {
			rotation.Version
			rotation.Material
		}{"the new version": {v, m}, "the old one": {last, password}} {
			if r := f.probe(b, x.Version, x.Material); r.Answer != rotation.Alive {
				f.t.Fatalf("%s is %s (%s), want alive", who, r.Answer, r.Reason)
			}
		}
		if uses := withoutProbes(f.standing(b, last).Uses); len(uses) != 1 || !strings.Contains(uses[0].Detail, "127.0.0.1") {
			f.t.Errorf("the old version's uses are %v, want one session with its address", uses)
		}
		f.must(b.End(ctx, last, rotation.ToRetire))
		if old() {
			f.t.Errorf("the session of version %d lives on", last.Number)
		}
		if r := f.probe(b, last, password); r.Answer != rotation.Dead {
			f.t.Errorf("version %d is %s (%s), want dead", last.Number, r.Answer, r.Reason)
		}
		if s := f.standing(b, last); s.Status != rotation.Ended {
			f.t.Errorf("version %d is %s, want ended", last.Number, s.Status)
		}
		last, password = v, m
	}
}

// rotatesOne goes through the life of two versions of one login.
func (f *fixture) rotatesOne() {
	f.t.Helper()
	ctx := context.Background()
	x := f.single()
	f.must(x.Preflight(ctx, rotation.Credential{Name: "orders-db"}))
	last, err := x.Adopt(ctx, version(1))
	f.must(err)
	password := material(oldPassword)
	for n := 2; n <= 3; n++ {
		old := f.session(last, password)
		v, m := f.staged(x, n, last)
		f.must(x.Activate(ctx, v))
		f.answer(x, v, m, rotation.Alive)
		f.answer(x, last, password, rotation.Dead)
		f.must(x.End(ctx, last, rotation.ToRetire))
		if old() {
			f.t.Errorf("the session of version %d lives on", last.Number)
		}
		f.status(x, last, rotation.Ended, 0)
		last, password = v, m
	}
}

// What an administrator lacks is named, with the statement that gives it; so is
// what the rules of the release are about.
func TestRightsThatLack(t *testing.T) {
	servers, whole := map[string]*testserver.Postgres{}, t
	for _, tt := range []struct {
		name, release, take string
		says, hint          string
	}{
		{"no createrole", "", "alter role $admin nocreaterole", "has no CREATEROLE", "CREATEROLE"},
		{"a superuser", "", "alter role $admin superuser", "is a superuser", "NOSUPERUSER"},
		{"no sessions", "", "revoke pg_signal_backend from $admin", "may not end sessions", "GRANT pg_signal_backend TO "},
		{"no admin option", "16", "revoke $role from $admin cascade", "has none on $role", `WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if servers[tt.release] == nil {
				if tt.release == "" {
					servers[tt.release] = shared.Get(t)
				} else {
					servers[tt.release] = testserver.NewPostgres(whole, testserver.PostgresOptions{Release: tt.release})
				}
			}
			f := createRole(t, servers[tt.release], nil)
			f.exec(f.database, f.named(tt.take))
			err := f.backend().Preflight(context.Background(), rotation.Credential{Name: "orders-db"})
			if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), f.named(tt.says)) || !strings.Contains(rotation.HintOf(err), tt.hint) {
				t.Errorf("Preflight = %v (%s), want refused with %q and the hint %q", err, rotation.HintOf(err), tt.says, tt.hint)
			}
		})
	}
	t.Run("the set-up", func(t *testing.T) {
		f := newFixture(t, servers["16"])
		f.settings.Rights = "createrole"
		for _, step := range []struct{ says, give string }{
			{"needs CREATEROLE", "alter role $admin createrole"},
			{"GRANT CREATE ON DATABASE", "grant create on database $database to $admin"},
			{"WITH ADMIN TRUE, INHERIT FALSE, SET FALSE", "grant $role to $admin with admin true, inherit false, set false"},
			{"GRANT pg_signal_backend, pg_read_all_stats", "grant pg_signal_backend, pg_read_all_stats to $admin"},
		} {
			if err := f.setUpItself(); err == nil || !strings.Contains(err.Error(), step.says) {
				t.Errorf("the set-up = %v, want that it says %q", err, step.says)
			}
			f.exec(f.database, f.named(step.give))
		}
		f.must(f.setUpItself())
		if err := f.trySetup(); err == nil || !strings.Contains(err.Error(), "runs the script itself") {
			t.Errorf("the set-up as a superuser = %v, want a refusal", err)
		}
	})
}

// doctor says what the right costs: up to 15 it is near superuser, and a log that
// the administrator may not silence holds verifiers.
func TestExamineCreateRole(t *testing.T) {
	for _, tt := range []struct {
		release       string
		near, verbose bool
	}{{"14", true, true}, {"18", false, false}} {
		settings := map[string]string{}
		if tt.verbose {
			settings["log_statement"] = "all"
		}
		f := createRole(t, testserver.NewPostgres(t, testserver.PostgresOptions{Release: tt.release, Settings: settings}), nil)
		remarks, err := f.backend().Examine(context.Background())
		f.must(err)
		text := fmt.Sprint(remarks)
		if got := strings.Contains(text, "nearly a superuser"); got != tt.near {
			t.Errorf("PostgreSQL %s: the warning of a near superuser: %v, want %v", tt.release, got, tt.near)
		}
		if got := strings.Contains(text, "SCRAM verifiers"); got != tt.verbose {
			t.Errorf("PostgreSQL %s: the warning of verifiers in the log: %v, want %v", tt.release, got, tt.verbose)
		}
	}
}

// A login of the administrator's arms and ends the others, and never itself: not
// by this program, nor by the functions, whoever calls them with a stolen password.
func TestAdministratorMayNotChangeItself(t *testing.T) {
	f := newFixture(t, shared.Get(t))
	folder := t.TempDir()
	keep := func(user, password string) {
		f.must(os.MkdirAll(filepath.Join(folder, "current"), 0o755))
		f.must(os.WriteFile(filepath.Join(folder, "current", "username"), []byte(user), 0o600))
		f.must(os.WriteFile(filepath.Join(folder, "current", "password"), []byte(password+"\n"), 0o600))
	}
	keep(f.admin(), adminPassword)
	f.settings = f.section(map[string]any{"admin": f.settings.Admin, "admin-from": folder, "role": f.admin()})
	f.setup()
	b, ctx := f.backend(), context.Background()
	v2, m := f.prepared(b, 2)
	keep(v2.Identity, string(m["password"].Reveal()))
	for name, do := range map[string]func() error{
		"Arm":    func() error { return b.Arm(ctx, v2, m, time.Now().Add(time.Hour)) },
		"Expire": func() error { return b.Expire(ctx, v2, time.Time{}) },
		"End":    func() error { return b.End(ctx, v2, rotation.ToRevoke) },
	} {
		if err := do(); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "may not change itself") || rotation.HintOf(err) == "" {
			t.Errorf("%s of the login in use = %v, want refused with a hint", name, err)
		}
	}
	conn, err := f.connect(v2.Identity, m)
	f.must(err)
	defer conn.Close(ctx)
	for _, call := range []string{"select keyturn.expire($1, null, 'orders-db', 2)", "select keyturn.disarm($1, 'orders-db', 2)",
		"select keyturn.arm($1, 'x', null, 'orders-db', 2)"} {
		if _, err := conn.Exec(ctx, call, v2.Identity); err == nil || !strings.Contains(err.Error(), "KT011") {
			t.Errorf("%s = %v, want KT011", call, err)
		}
	}
	v3, m3 := f.prepared(b, 3, v2) // another it may
	if r := f.probe(b, v3, m3); r.Answer != rotation.Alive {
		t.Errorf("the next login is %s (%s), want alive", r.Answer, r.Reason)
	}
}
