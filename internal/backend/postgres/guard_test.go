package postgres_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestWhatTheAdministratorMay shows that its login is good for the functions
// only, and the functions for the listed logins only.
func TestWhatTheAdministratorMay(t *testing.T) {
	f := adopted(t)
	f.prepared(f.backend(), 2)
	f.exec(f.database, "create role bystander"+f.role+" login password 'x'", "alter role "+f.role+"_c login")
	url := f.server.URL(f.admin(), adminPassword, f.database)
	verifier, err := postgres.Verifier(secret.FromString("p"))
	if err != nil {
		t.Fatal(err)
	}
	scram, a := string(verifier.Reveal()), f.role+"_b"
	var foreign []*pgx.Conn
	for _, who := range [][2]string{{testserver.AdminUser, f.server.AdminPassword()}, {"bystander" + f.role, "x"}} {
		conn, err := f.server.Connect(context.Background(), who[0], who[1], f.database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		foreign = append(foreign, conn)
	}
	for _, tt := range []struct{ name, statement, code string }{
		{"arming an unmanaged role", fmt.Sprintf("select keyturn.arm('bystander%s', '%s', 'infinity', 'c', 1)", f.role, scram), "KT001"},
		{"arming the superuser", fmt.Sprintf("select keyturn.arm('postgres', '%s', 'infinity', 'c', 1)", scram), "KT001"},
		{"arming the adopted role", fmt.Sprintf("select keyturn.arm('%s', '%s', 'infinity', 'c', 1)", f.role, scram), "KT001"},
		{"a clear password", fmt.Sprintf("select keyturn.arm('%s', 'clear', 'infinity', 'c', 1)", a), "KT002"},
		{"an md5 hash", fmt.Sprintf("select keyturn.arm('%s', 'md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'infinity', 'c', 1)", a), "KT002"},
		{"a verifier with a tail", fmt.Sprintf("select keyturn.arm('%s', '%s; x', 'infinity', 'c', 1)", a, scram), "KT002"},
		{"no verifier", fmt.Sprintf("select keyturn.arm('%s', null, 'infinity', 'c', 1)", a), "KT002"},
		{"a time gone by", fmt.Sprintf("select keyturn.arm('%s', '%s', 'yesterday', 'c', 1)", a, scram), "KT007"},
		{"another's login", fmt.Sprintf("select keyturn.arm('%s_a', '%s', 'infinity', 'c', 1)", f.role, scram), "KT003"},
		{"another's expiry", fmt.Sprintf("select keyturn.expire('%s_a', null, 'c', 1)", f.role), "KT005"},
		{"killing who may log in", fmt.Sprintf("select keyturn.kill('%s_a')", f.role), "KT006"},
		{"killing an unmanaged role", "select keyturn.kill('postgres')", "KT001"},
		{"disarming an unmanaged role", "select keyturn.disarm('postgres', 'c', 1)", "KT001"},
		{"disarming what nobody holds", fmt.Sprintf("select keyturn.disarm('%s_c', 'c', 1)", f.role), "KT009"},
		{"looking at an unmanaged role", "select keyturn.state('postgres')", "KT001"},
		{"the list", "insert into keyturn.managed values ('postgres', 'x')", "42501"},
		{"a direct ALTER", "alter role " + a + " login", "42501"},
		{"verifiers", "select rolpassword from pg_authid", "42501"},
		{"data", "select * from " + f.role + ".items", "42501"},
		{"the owner of the functions", "set role keyturn_owner", "42501"},
		{"the application's role", "set role " + f.role, "42501"},
		{"ending a superuser's session", fmt.Sprintf("select pg_terminate_backend(%d)", pidOf(t, foreign[0])), "42501"},
		{"ending somebody's session", fmt.Sprintf("select pg_terminate_backend(%d)", pidOf(t, foreign[1])), "42501"},
		{"cancelling somebody's statement", fmt.Sprintf("select pg_cancel_backend(%d)", pidOf(t, foreign[1])), "42501"},
	} {
		err := f.try(url, f.database, tt.statement)
		var pe *pgconn.PgError
		if e, ok := asPgError(err); ok {
			pe = e
		}
		if pe == nil || pe.Code != tt.code {
			t.Errorf("%s: %v, want SQLSTATE %s", tt.name, err, tt.code)
			continue
		}
		if strings.Contains(pe.Message+pe.Detail+pe.Where, "SCRAM-SHA-256$") {
			t.Errorf("%s: the error repeats the verifier: %+v", tt.name, pe)
		}
	}
	for i, conn := range foreign {
		if err := conn.Ping(context.Background()); err != nil {
			t.Errorf("foreign session %d: %v, want it alive", i, err)
		}
	}
	public := f.server.URL("bystander"+f.role, "x", f.database)
	if err := f.try(public, f.database, "select keyturn.state('"+a+"')"); err == nil {
		t.Error("everybody may call the functions")
	}
}

// pidOf returns the process of a session.
func pidOf(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	var pid int
	if err := conn.QueryRow(context.Background(), "select pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestIdentify(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	two, m := f.prepared(b, 2)
	conn, err := f.connect(two.Identity, m)
	if err != nil {
		t.Fatal(err)
	}
	three, _ := f.prepared(b, 3, two)
	refused := func(err error, want string) {
		t.Helper()
		if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), want) || rotation.HintOf(err) == "" {
			t.Errorf("Identify = %v, want refused with a hint: …%s…", err, want)
		}
	}
	_, err = b.Identify(ctx, version(4), []rotation.Version{two, three})
	refused(err, fmt.Sprintf(`no free login of %q: "%[2]s_a" is version 2's; "%[2]s_b" is version 3's; "%[2]s_c" is kept for emergencies`, f.role, f.role))
	urgent := f.backend(func(o *postgres.Options) { o.Emergency = true })
	if v, err := urgent.Identify(ctx, version(4), []rotation.Version{two, three}); err != nil || v.Identity != f.role+"_c" {
		t.Errorf("Identify in an emergency = %q, %v, want %q", v.Identity, err, f.role+"_c")
	}
	_, err = b.Identify(ctx, version(3), []rotation.Version{two})
	refused(err, fmt.Sprintf(`login %q is armed for version 3 of "orders-db", which is not on this record`, f.role+"_b"))
	_, err = b.Identify(ctx, version(4), []rotation.Version{two})
	refused(err, "is still armed for version 3, which is to be ended first")
	f.exec(f.database, "alter role "+f.role+"_b nologin", "update keyturn.managed set credential = null, version = null where login = '"+f.role+"_b'",
		"alter role "+f.role+"_b login")
	_, err = b.Identify(ctx, version(4), []rotation.Version{two})
	refused(err, "is armed for nobody that Keyturn knows")
	// Disarmed by hand, with a session left over.
	f.exec(f.database, "alter role "+f.role+"_b nologin", "alter role "+two.Identity+" nologin")
	v, err := b.Identify(ctx, version(4), nil)
	if err != nil || v.Identity != f.role+"_b" {
		t.Errorf("Identify = %q, %v, want %q, which has no session", v.Identity, err, f.role+"_b")
	}
	draft, _ := b.Draft(two)
	err = b.Arm(ctx, rotation.Version{Credential: "orders-db", Number: 5, Identity: two.Identity}, draft, time.Now().Add(time.Hour))
	refused(err, "still has 1 sessions")
	_ = conn.Close(ctx)
}

// TestTwoArmingsAtOnce shows that of two rotators one gets the login.
func TestTwoArmingsAtOnce(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	v, err := b.Identify(ctx, version(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	drafts := make([]rotation.Material, len(errs))
	for i := range errs {
		w := v.Clone()
		w.Number += i
		drafts[i], _ = b.Draft(w)
		wg.Go(func() { errs[i] = b.Arm(ctx, w, drafts[i], time.Now().Add(time.Hour)) })
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
			w := v.Clone()
			w.Number += i
			if r := f.probe(b, w, drafts[i]); r.Answer != rotation.Alive {
				t.Errorf("the winner is %+v, want alive", r)
			}
		case rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "may log in already"):
			t.Errorf("the loser's error is %v, want refused", err)
		}
	}
	if won != 1 {
		t.Errorf("%d armings of one login succeeded, want 1", won)
	}
}

// TestConcurrentAlter: somebody has altered the same role in a transaction that
// is still open. Ours waits for it, gets "tuple concurrently updated" (XX000),
// looks again and gets through.
func TestConcurrentAlter(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	v, err := b.Identify(ctx, version(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Draft(v)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"Arm", func() error { return b.Arm(ctx, v, m, time.Now().Add(time.Hour)) }},
		{"Expire", func() error { return b.Expire(ctx, v, time.Time{}) }},
		{"End", func() error { return b.End(ctx, v, rotation.ToRetire) }},
	} {
		conn, err := f.server.Connect(ctx, testserver.AdminUser, f.server.AdminPassword(), f.database)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "begin"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "alter role "+v.Identity+" connection limit 40"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- call.do() }()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if f.text("select count(*)::text from pg_locks where not granted") != "0" {
				break
			}
		}
		if _, err := conn.Exec(ctx, "commit"); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(ctx)
		if err := <-done; err != nil {
			t.Errorf("%s beside another's ALTER ROLE: %v", call.name, err)
		}
	}
}

func TestCompareNamesEveryDifference(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	a, bee := f.role+"_a", f.role+"_b"
	one := rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role}
	va, vb := rotation.Version{Number: 2, Identity: a}, rotation.Version{Number: 3, Identity: bee}
	for _, pair := range [][2]rotation.Version{{va, vb}, {va, one}} {
		if err := b.Compare(ctx, pair[0], pair[1]); err != nil {
			t.Errorf("Compare after the set-up: %v", err)
		}
	}
	f.exec(f.database, "create role other"+f.role)
	for _, tt := range []struct{ do, undo, want string }{
		{"alter role %s connection limit 5", "alter role %s connection limit 40", `connection limit: ` + a + ` has "5", ` + bee + ` has "40"`},
		{"alter role %s set search_path = x", `alter role %s set search_path = "$user", public`, `search_path: ` + a + ` has "x"`},
		{"alter role %s in database " + f.database + " set work_mem = '9MB'", "alter role %s in database " + f.database + " set work_mem = '5MB'",
			`in database ` + f.database + `: work_mem: ` + a + ` has "9MB"`},
		{"alter role %s set app.key = 'canary-1'", "alter role %s reset app.key", "app.key: " + a + " has a value, " + bee + " has nothing"},
		{"alter role %s in database " + f.database + " set app.key = 'canary-1'", "alter role %s in database " + f.database + " reset app.key", "app.key: " + a + " has a value"},
		{"alter role %[1]s set app.key = 'canary-1'; alter role " + bee + " set app.key = 'canary-2'; select '%[1]s'", "alter role %s reset app.key; alter role " + bee + " reset app.key",
			"app.key: " + a + " has a value of its own, " + bee + " has a value of its own"},
		{"alter role %s createdb", "alter role %s nocreatedb", a + " is CREATEDB"},
		{"alter role %s superuser", "alter role %s nosuperuser", a + " is SUPERUSER"},
		{"alter role %s noinherit", "alter role %s inherit", "without INHERIT"},
		{"alter role %s reset role", "alter role %s set role = '" + f.role + "'", a + " has no SET role"},
		{"alter role %s set role = 'postgres'", "alter role %s set role = '" + f.role + "'", `has SET role "postgres"`},
		{"grant other" + f.role + " to %s", "revoke other" + f.role + " from %s", `is also a member of "other`},
		{"revoke " + f.role + " from %s", "grant " + f.role + " to %s", "is no member of"},
		{"grant select on " + f.role + ".items to %s", "revoke select on " + f.role + ".items from %s", "owns 1 objects or rights of its own"},
	} {
		f.exec(f.database, fmt.Sprintf(tt.do, a))
		err := b.Compare(ctx, va, vb)
		if err == nil || rotation.ClassOf(err) != rotation.Failed || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("after %q: Compare = %v, want …%s…", tt.do, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("after %q: Compare repeats the value of a setting: %v", tt.do, err)
		}
		f.exec(f.database, fmt.Sprintf(tt.undo, a))
	}
	if err := b.Compare(ctx, va, vb); err != nil {
		t.Errorf("Compare at the end: %v", err)
	}
}

func TestLock(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	unlock, err := b.Lock(ctx, "orders-db")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.backend().Lock(ctx, "orders-db")
	if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "another rotator holds the lock") || !strings.Contains(err.Error(), "(keyturn, from 127.0.0.1)") {
		t.Errorf("the second Lock = %v, want refused, with its holder", err)
	}
	other, err := f.backend().Lock(ctx, "other-db")
	if err != nil {
		t.Errorf("Lock of another credential: %v", err)
	} else if err := other(ctx); err != nil {
		t.Error(err)
	}
	if err := unlock(ctx); err != nil {
		t.Fatal(err)
	}
	again, err := b.Lock(ctx, "orders-db")
	if err != nil {
		t.Fatalf("Lock after unlock: %v", err)
	}
	if err := again(ctx); err != nil {
		t.Error(err)
	}
}

// TestAdministratorsFailures shows class, text and hint of what goes wrong
// before anything is done.
func TestAdministratorsFailures(t *testing.T) {
	f := newFixture(t, shared.Get(t))
	ctx := context.Background()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	good := f.settings
	for _, tt := range []struct {
		name   string
		change func(*postgres.Settings, *postgres.Options)
		class  rotation.Class
		text   string
		hint   string
	}{
		{"not set up", func(*postgres.Settings, *postgres.Options) {}, rotation.Failed, "SQLSTATE", "keyturn setup postgres"},
		{"wrong password", func(_ *postgres.Settings, o *postgres.Options) {
			o.Getenv = func(string) string { return "canary-wrong" }
		},
			rotation.Failed, "28P01", "password of the administrator"},
		{"no password", func(_ *postgres.Settings, o *postgres.Options) { o.Getenv = func(string) string { return "" } },
			rotation.Invalid, "environment variable ADMIN holds no value", ""},
		{"no server", func(s *postgres.Settings, _ *postgres.Options) {
			s.Admin = strings.Replace(s.Admin, f.server.Addr(), nobody, 1)
		},
			rotation.Unknown, "refused", ""},
		{"one host of two", func(s *postgres.Settings, _ *postgres.Options) {
			s.Admin = strings.Replace(s.Admin, f.server.Addr(), f.server.Addr()+","+nobody, 1)
		}, rotation.Unknown, "refused", "every host"},
		{"another database", func(s *postgres.Settings, _ *postgres.Options) {
			s.Admin = strings.Replace(s.Admin, f.database, "nothere", 1)
		},
			rotation.Failed, "3D000", ""},
	} {
		o := f.options
		f.settings = good
		tt.change(&f.settings, &o)
		b, err := postgres.New(f.settings, o)
		if err != nil {
			t.Fatal(err)
		}
		for call, err := range map[string]error{
			"Identify":  second(b.Identify(ctx, version(2), nil)),
			"Observe":   second(b.Observe(ctx, rotation.Version{Credential: "orders-db", Number: 2, Identity: f.role + "_a"})),
			"Preflight": b.Preflight(ctx, rotation.Credential{Name: "orders-db"}),
		} {
			if err == nil || rotation.ClassOf(err) != tt.class || !strings.Contains(err.Error(), tt.text) || !strings.Contains(rotation.HintOf(err), tt.hint) {
				t.Errorf("%s: %s = %v (class %d, hint %q), want class %d …%s… …%s…", tt.name, call, err, rotation.ClassOf(err), rotation.HintOf(err), tt.class, tt.text, tt.hint)
			}
			if err != nil && (strings.Contains(fmt.Sprintf("%+v", err), "canary") || strings.Contains(err.Error(), adminPassword)) {
				t.Errorf("%s: %s repeats a password: %v", tt.name, call, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }
