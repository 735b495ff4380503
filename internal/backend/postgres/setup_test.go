package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestSetupRefuses shows what the script does not touch.
func TestSetupRefuses(t *testing.T) {
	for _, tt := range []struct{ name, before, want string }{
		{"a superuser", "alter role ROLE superuser", "is a superuser"},
		{"a role with BYPASSRLS", "alter role ROLE bypassrls", "or BYPASSRLS"},
		{"a login of somebody's", "create role ROLE_b login", "was not armed by Keyturn"},
		{"a login of somebody's with our words", `create role ROLE_b login; comment on role ROLE_b is 'keyturn:{"credential":"c","version":1}'`, "was not armed by Keyturn"},
		{"a powerful login", "create role ROLE_b createrole", "more rights"},
		{"a login with members", "create role ROLE_b; create role ROLE_m in role ROLE_b", "is somebody's"},
		{"a login of other roles", "create role ROLE_b in role pg_monitor", "is somebody's"},
		{"a login that owns something", "create role ROLE_b; create schema ROLE_s authorization ROLE_b", "is somebody's"},
		{"a login with rights of its own", "create role ROLE_b; grant select on ROLE.items to ROLE_b", "is somebody's"},
		{"a powerful administrator", "alter role ADMIN createdb", "it needs a login without any attribute"},
		{"a schema of somebody's", "create schema keyturn authorization ROLE", "belongs to somebody else"},
	} {
		f := newFixture(t, shared.Get(t))
		f.exec(f.database, strings.NewReplacer("ROLE", f.role, "ADMIN", f.admin()).Replace(tt.before))
		err := f.trySetup()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Setup's script = %v, want …%s…", tt.name, err, tt.want)
		}
		if n := f.text("select count(*)::text from pg_roles where rolname = $1", f.role+"_a"); n != "0" {
			t.Errorf("%s: the script left a login behind", tt.name)
		}
	}
	f := newFixture(t, shared.Get(t))
	if err := f.try(f.server.AdminURL(), "postgres", postgres.Setup(f.settings, postgres.SetupInfo{})); err == nil || !strings.Contains(err.Error(), "the script is for "+f.database) {
		t.Errorf("Setup's script in another database = %v", err)
	}
}

// TestSetupRefusesAnOwnerThatIsSomebodys, on a server of its own: the owner is
// one for all databases.
func TestSetupRefusesAnOwnerThatIsSomebodys(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
	f.exec("postgres", "create role keyturn_owner createrole", "create role somebody")
	for _, tt := range []struct{ do, undo string }{
		{"alter role keyturn_owner login", "alter role keyturn_owner nologin"},
		{"alter role keyturn_owner superuser", "alter role keyturn_owner nosuperuser"},
		{"alter role keyturn_owner bypassrls", "alter role keyturn_owner nobypassrls"},
		{"grant keyturn_owner to somebody", "revoke keyturn_owner from somebody"},
	} {
		f.exec("postgres", tt.do)
		if err := f.trySetup(); err == nil || !strings.Contains(err.Error(), "role keyturn_owner exists, and may log in") {
			t.Errorf("after %q: Setup's script = %v, want it refused", tt.do, err)
		}
		f.exec("postgres", tt.undo)
	}
	f.setup()
}

// TestSetupLeavesOtherRolesAlone runs the script for a second role that wants
// the logins of the first, one of which is in use.
func TestSetupLeavesOtherRolesAlone(t *testing.T) {
	f := adopted(t)
	b := f.backend()
	v, m := f.prepared(b, 2)
	first := f.settings
	section := func(role string, logins ...string) postgres.Settings {
		return f.section(map[string]any{"admin": first.Admin, "admin-password": map[string]any{"from-env": "A"}, "role": role, "logins": logins})
	}
	for _, tt := range []struct {
		name     string
		settings postgres.Settings
		want     string
	}{
		{"a login in use", section(f.role+"_rw", v.Identity, f.role+"_x"), "login " + v.Identity + " belongs to role " + f.role},
		{"a free login", section(f.role+"_rw", f.role+"_x", f.role+"_c"), "login " + f.role + "_c belongs to role " + f.role},
		{"an adopted login", section(f.role+"_rw", f.role, f.role+"_x"), "login " + f.role + " belongs to role " + f.role},
		{"a login as role", section(v.Identity, f.role+"_x", f.role+"_y"), "role " + v.Identity + " is a login of role " + f.role},
	} {
		f.settings = tt.settings
		if err := f.trySetup(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Setup's script = %v, want …%s…", tt.name, err, tt.want)
		}
	}
	f.settings = first
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Errorf("the login in use is %+v, want alive", r)
	}
	if err := b.Preflight(context.Background(), rotation.Credential{Name: "orders-db"}); err != nil {
		t.Errorf("Preflight: %v", err)
	}
}

// TestSetupTakesLoginsThatAreNobodys: a login that was made beforehand, and one
// that the functions of another database armed for this very role.
func TestSetupTakesLoginsThatAreNobodys(t *testing.T) {
	f := newFixture(t, shared.Get(t))
	f.exec(f.database, strings.ReplaceAll(`create role ROLE_a in role ROLE; create role ROLE_b login in role ROLE;
		alter role ROLE_b set role = 'ROLE'; comment on role ROLE_b is 'keyturn:{"credential":"orders-db","version":2}'`, "ROLE", f.role))
	f.setup()
	v := version(2)
	v.Identity = f.role + "_b"
	if s := f.standing(f.backend(), v); s.Status != rotation.Armed {
		t.Errorf("Observe = %+v, want armed: the comment says so", s)
	}
}

// TestSetupAgain runs the script a second time, in the middle of a rotation and
// after new settings of the role.
func TestSetupAgain(t *testing.T) {
	f := adopted(t)
	b := f.backend()
	v, m := f.prepared(b, 2)
	f.exec(f.database, "alter role "+f.role+" set statement_timeout = '9s'", "alter role "+f.role+" in database "+f.database+" reset all",
		`alter role `+f.role+` set search_path = 'a;drop/**/table/**/x', "q""uote", public`)
	f.setup()
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Errorf("after the second run the version is %+v, want alive", r)
	}
	want := f.text("select array_to_string(rolconfig, ';') from pg_roles where rolname = $1", f.role) + ";role=" + f.role
	if got := f.text("select array_to_string(rolconfig, ';') from pg_roles where rolname = $1", v.Identity); got != want {
		t.Errorf("settings of the login: %s, want %s", got, want)
	}
	if got := f.text("select count(*)::text from pg_db_role_setting s join pg_roles r on r.oid = s.setrole where s.setdatabase <> 0 and r.rolname = $1", v.Identity); got != "0" {
		t.Error("a setting that the role lost is kept by the login")
	}
}

// TestSetupAsManagedServicesAdministrator runs the script as a role that is no
// superuser, has CREATEROLE and may not read pg_authid, and rotates.
func TestSetupAsManagedServicesAdministrator(t *testing.T) {
	server := testserver.NewPostgres(t, testserver.PostgresOptions{})
	f := newFixture(t, server)
	f.exec(f.database, "create role master login createrole createdb password 'm'", "alter database "+f.database+" owner to master",
		"grant pg_signal_backend, pg_read_all_stats to master with admin option", "grant "+f.role+" to master")
	for range 2 { // again, too
		if err := f.try(f.server.URL("master", "m", f.database), f.database, postgres.Setup(f.settings, postgres.SetupInfo{})); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.text("select count(*)::text from pg_auth_members m join pg_roles r on r.oid = m.roleid where r.rolname = 'keyturn_owner'"); got != "0" {
		t.Error("somebody is still a member of the functions' owner")
	}
	ctx := context.Background()
	if _, err := f.backend().Adopt(ctx, version(1)); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "(not visible)") {
		t.Errorf("Adopt = %v, want refused: nobody could look into pg_hba.conf", err)
	}
	f.settings.AllowChanged = []string{"pg-hba"}
	b := f.backend()
	one, err := b.Adopt(ctx, version(1))
	if err != nil {
		t.Fatal(err)
	}
	v, m := f.prepared(b, 2, one)
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Fatalf("the new version is %+v, want alive", r)
	}
	if err := b.End(ctx, one, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	if s := f.standing(b, one); s.Status != rotation.Ended || !strings.Contains(s.Detail, "not visible") {
		t.Errorf("Observe = %+v, want ended, with a word on the password", s)
	}
	if r := f.probe(b, one, material(oldPassword)); r.Answer != rotation.Dead {
		t.Errorf("the old version is %+v, want dead", r)
	}
}
