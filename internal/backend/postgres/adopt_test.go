package postgres_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestAdoptRefuses shows who cannot become the role of the logins, with text and hint.
func TestAdoptRefuses(t *testing.T) {
	f := adopted(t)
	ctx := context.Background()
	for _, tt := range []struct{ do, undo, want string }{
		{"alter role %s superuser", "alter role %s nosuperuser", "is a superuser, which logins in turn must not be"},
		{"alter role %s createrole", "alter role %s nocreaterole", "is CREATEROLE, which"},
		{"alter role %s replication", "alter role %s noreplication", "is REPLICATION, which"},
		{"alter role %s bypassrls", "alter role %s nobypassrls", "is BYPASSRLS, which"},
		{"alter role %s nologin", "alter role %s login", "nobody can log in as"},
		{"alter role %s valid until 'yesterday'", "alter role %s valid until 'infinity'", "nobody can log in as"},
		{"alter role %s password null", "alter role %s password '" + oldPassword + "'", "nobody can log in as"},
		{"set password_encryption = 'md5'; alter role %s password 'x'", "alter role %s password '" + oldPassword + "'", "is stored as md5"},
		{"alter role %s set role = 'pg_monitor'", "alter role %s reset role", `acts as "pg_monitor" by a SET role of its own`},
		{"alter database postgres owner to %s", "alter database postgres owner to postgres; select '%s'", "owns a database of it"},
		{"delete from keyturn.managed where login = '%s_a'", "insert into keyturn.managed values ('%[1]s_a', '%[1]s')", "_a\" is not on the list of logins"},
		{"delete from keyturn.managed where login = '%s'", "insert into keyturn.managed values ('%[1]s', '%[1]s')", "is not one that Keyturn may touch"},
		{"create or replace function keyturn.version() returns int language sql as 'select 99 -- %s'", "create or replace function keyturn.version() returns int language sql as 'select 3 -- %s'", "have version 99, this program needs 3"},
	} {
		f.exec(f.database, fmt.Sprintf(tt.do, f.role))
		_, err := f.backend().Adopt(ctx, version(1))
		if err == nil || rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), tt.want) || rotation.HintOf(err) == "" {
			t.Errorf("after %q: Adopt = %v (hint %q), want refused …%s…", tt.do, err, rotation.HintOf(err), tt.want)
		}
		f.exec(f.database, fmt.Sprintf(tt.undo, f.role))
	}
	if _, err := f.backend().Adopt(ctx, version(1)); err != nil {
		t.Errorf("Adopt at the end: %v", err)
	}
}

// TestAdoptListsWhatWouldChange shows every kind, and that each can be accepted.
func TestAdoptListsWhatWouldChange(t *testing.T) {
	f := adopted(t)
	ctx := context.Background()
	second := f.database + "_2"
	f.exec("postgres", "create database "+second)
	f.exec(f.database, fmt.Sprintf(`
		create policy mine on %[1]s.items using (name = session_user);
		create function %[1]s.audit() returns trigger language plpgsql as $$ begin raise log '%%', session_user; return new; end $$;
		create trigger audit before insert on %[1]s.items for each row when (session_user <> 'x') execute function %[1]s.audit();
		create view %[1]s.me as select session_user as who;
		alter table %[1]s.items add column by_whom text default session_user, add constraint c check (name <> session_user);
		create function %[1]s.stop() returns void language sql as 'select pg_cancel_backend(1)';
		create subscription sub%[1]s connection 'host=nowhere' publication p with (connect = false);
		alter role %[1]s superuser; alter subscription sub%[1]s owner to %[1]s; alter role %[1]s nosuperuser`, f.role))
	f.exec(second, `create function whoami() returns text language sql as 'select session_user::text';
		create schema mine authorization `+f.role+`; create schema cron; create table cron.job (username text);
		create extension postgres_fdw; create server away foreign data wrapper postgres_fdw;
		create user mapping for public server away options (user 'x')`)
	t.Cleanup(func() {
		f.exec(f.database, "alter subscription sub"+f.role+" disable", "alter subscription sub"+f.role+" set (slot_name = none)", "drop subscription sub"+f.role)
	})
	_, err := f.backend().Adopt(ctx, version(1))
	if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(rotation.HintOf(err), "allow-changed") {
		t.Fatalf("Adopt = %v, want refused with allow-changed as hint", err)
	}
	items := f.role + ".items"
	for _, want := range []string{
		"session-user: " + f.database + ".policy mine on " + items,
		"session-user: " + f.database + ".function " + f.role + ".audit()",
		"session-user: " + f.database + ".trigger audit on " + items,
		"session-user: " + f.database + ".view " + f.role + ".me",
		"session-user: " + f.database + ".default of " + items + ".by_whom",
		"session-user: " + f.database + ".constraint c on " + items,
		"session-user: " + second + ".function public.whoami()",
		"own-sessions: " + f.database + ".function " + f.role + ".stop()",
		"cron: " + second + ".jobs of pg_cron",
		"user-mapping: " + second + ".server away for public (options not visible)",
		"subscription: " + f.database + ".sub" + f.role,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Adopt does not list %q:\n%v", want, err)
		}
	}
	f.settings.AllowChanged = []string{"session-user", "cron", "user-mapping", "subscription"}
	_, err = f.backend().Adopt(ctx, version(1))
	if err == nil || strings.Contains(err.Error(), "session-user") || !strings.Contains(err.Error(), "own-sessions") {
		t.Errorf("Adopt with most of it allowed = %v, want own-sessions only", err)
	}
	f.settings.AllowChanged = append(f.settings.AllowChanged, "own-sessions:"+f.database+".function "+f.role+".stop()")
	if _, err = f.backend().Adopt(ctx, version(1)); err != nil {
		t.Errorf("Adopt with all of it allowed: %v", err)
	}
	// A database that the administrator may not enter counts as unknown.
	f.exec("postgres", "revoke connect on database "+second+" from public", "grant connect on database "+second+" to "+f.role)
	if _, err = f.backend().Adopt(ctx, version(1)); err == nil || !strings.Contains(err.Error(), "database: "+second) {
		t.Errorf("Adopt with a closed database = %v, want it named", err)
	}
}

// TestAdoptComparesWithTheServices: a service that is told another host, port,
// database or login than it uses would follow it, at the first cutover.
func TestAdoptComparesWithTheServices(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	host, port, err := net.SplitHostPort(f.server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	right := map[string]string{"username": f.role, "host": host, "port": port, "database": f.database}
	for _, tt := range []struct {
		said map[string]string
		want []string // the fields that differ, and what they would be
	}{
		{right, nil},
		{map[string]string{"username": f.role, "region": "north"}, nil}, // what is no field of ours is nobody's business
		{nil, nil},
		{map[string]string{"username": "canary-somebody"}, []string{`username (it would be "` + f.role + `")`}},
		{map[string]string{"username": f.role, "host": "canary-pooler", "port": "canary-1", "database": "canary-db"},
			[]string{`database (it would be "` + f.database + `")`, `host (it would be "` + host + `")`, `port (it would be "` + port + `")`}},
	} {
		v := version(1)
		v.Public = tt.said
		got, err := b.Adopt(ctx, v)
		if tt.want == nil {
			if d := cmp.Diff(right, got.Public); err != nil || d != "" {
				t.Errorf("Adopt of services that say %v: %v, public (-want +got):\n%s", tt.said, err, d)
			}
			continue
		}
		if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "differs from what they would get: "+strings.Join(tt.want, ", ")) || rotation.HintOf(err) == "" {
			t.Errorf("Adopt of services that say %v = %v, want refused, with %v", tt.said, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("Adopt repeats what the services say: %v", err)
		}
	}
	v := version(1)
	v.Identity = "somebody"
	if _, err := b.Adopt(ctx, v); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "username (it would be") {
		t.Errorf("Adopt of another login = %v, want refused", err)
	}
}

// TestAdoptTellsOfClients: visibly, and once for each program and address.
func TestAdoptTellsOfClients(t *testing.T) {
	f := adopted(t)
	ctx := context.Background()
	for _, name := range []string{"nightly-report", "nightly-report", "shop"} {
		conn, err := f.server.Connect(ctx, f.role, oldPassword, f.database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "set application_name = '"+name+"'"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.backend().Adopt(ctx, version(1)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"application=nightly-report from=127.0.0.1 sessions=2", "application=shop from=127.0.0.1 sessions=1"} {
		if n := strings.Count(f.log.String(), want); n != 1 {
			t.Errorf("the log says %d times %q, want once:\n%s", n, want, f.log)
		}
	}
	if n := strings.Count(f.log.String(), "level=WARN"); n != 2 {
		t.Errorf("the log has %d warnings, want one for each client:\n%s", n, f.log)
	}
}

// TestAdoptReadsHBA: lines that let the login in and not its successors are
// named, and so is a file that cannot be seen.
func TestAdoptReadsHBA(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
	f.setup()
	ctx := context.Background()
	a, b, c := f.role+"_a", f.role+"_b", f.role+"_c"
	const rest = "\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
	for _, tt := range []struct{ lines, want string }{
		{"hostssl all all 10.0.0.0/8 scram-sha-256", ""},
		{"hostssl all +" + f.role + " 10.0.0.0/8 scram-sha-256", ""},
		{fmt.Sprintf("hostssl all %s,%s,%s,%s 10.0.0.0/8 scram-sha-256", f.role, a, b, c), ""},
		{fmt.Sprintf("hostssl all %[1]s,+%[1]s 10.0.0.0/8 scram-sha-256", f.role), ""},
		{"hostssl all other" + f.role + " 10.0.0.0/8 scram-sha-256", ""},
		{"hostssl sameuser all 10.0.0.0/8 scram-sha-256", ""}, // no database is named like the login
		{"hostssl all " + f.role + " 10.0.0.0/8 scram-sha-256", "(databases all; users " + f.role + ")"},
		{"hostssl all " + f.role + " 10.0.0.0/8 reject", "(databases all; users " + f.role + ")"},
		{fmt.Sprintf("hostssl %s,x %s,%s 10.0.0.0/8 scram-sha-256", f.database, f.role, a), "(databases " + f.database + ",x; users " + f.role + "," + a + ")"},
	} {
		f.hba(tt.lines + rest)
		_, err := f.backend().Adopt(ctx, version(1))
		switch want := "pg-hba: line 2 on " + f.server.Addr() + " " + tt.want; {
		case tt.want == "" && err != nil:
			t.Errorf("with %q: Adopt = %v, want no error", tt.lines, err)
		case tt.want != "" && (rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), want)):
			t.Errorf("with %q: Adopt = %v, want refused: %s", tt.lines, err, want)
		}
	}
	f.exec("postgres", "create database "+f.role)
	f.hba("hostssl sameuser all 10.0.0.0/8 scram-sha-256" + rest)
	if _, err := f.backend().Adopt(ctx, version(1)); err == nil || !strings.Contains(err.Error(), "pg-hba: line 2 on "+f.server.Addr()+" (databases sameuser; users all)") {
		t.Errorf("with a database named like the login: Adopt = %v, want the line named", err)
	}
	f.hba(rest)
	f.exec(f.database, "revoke execute on function pg_hba_file_rules() from keyturn_owner")
	if _, err := f.backend().Adopt(ctx, version(1)); rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "pg-hba: pg_hba.conf of "+f.server.Addr()+" (not visible)") {
		t.Errorf("where it is not visible: Adopt = %v, want refused", err)
	}
	f.exec(f.database, "drop function keyturn.hba(text)")
	if _, err := f.backend().Adopt(ctx, version(1)); err == nil || strings.Contains(err.Error(), "not visible") || !strings.Contains(rotation.HintOf(err), "keyturn setup postgres") {
		t.Errorf("without the function: Adopt = %v (hint %q), want the set-up named", err, rotation.HintOf(err))
	}
	f.setup()
	if _, err := f.backend().Adopt(ctx, version(1)); err != nil {
		t.Errorf("after the set-up: Adopt = %v", err)
	}
}

// TestNothingToAdopt rotates a role that never logged in.
func TestNothingToAdopt(t *testing.T) {
	f := newFixture(t, shared.Get(t))
	f.settings = f.section(map[string]any{"admin": f.settings.Admin, "admin-password": map[string]any{"from-env": "A"}, "role": f.role + "_rw"})
	f.setup()
	b, ctx := f.backend(), context.Background()
	if _, err := b.Adopt(ctx, version(1)); rotation.ClassOf(err) != rotation.Refused {
		t.Errorf("Adopt = %v, want refused: nobody logs in as the role", err)
	}
	v, m := f.prepared(b, 1)
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Errorf("the first version is %+v, want alive", r)
	}
}
