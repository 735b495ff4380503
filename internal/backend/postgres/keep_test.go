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
	"github.com/keyturn/keyturn/internal/testserver"
)

// sessionsOf are the administrator's sessions, but for the one that holds the lock: their processes.
func (f *fixture) sessionsOf() string {
	f.t.Helper()
	return f.text(`select coalesce(string_agg(pid::text, ' ' order by pid), '') from pg_stat_activity
		where usename = $1 and pid not in (select pid from pg_locks where locktype = 'advisory')`, f.admin())
}

// left waits until a session of the administrator is gone, as it is a moment after its end.
func (f *fixture) left(pids string) {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		now := strings.Fields(f.sessionsOf())
		if !slices.ContainsFunc(strings.Fields(pids), func(pid string) bool { return slices.Contains(now, pid) }) {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("sessions %s are still there", pids)
		}
	}
}

// While the lock is held the administrator's session is used again; not once it has ended,
// the account is another one, or its log was silenced; and none is left after it.
func TestConnectionsAreKept(t *testing.T) {
	f := adopted(t)
	password := adminPassword
	b, ctx := f.backend(func(o *postgres.Options) { o.Getenv = func(string) string { return password } }), context.Background()
	next, err := b.Identify(ctx, version(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	look := func() string {
		t.Helper()
		if _, err := b.Observe(ctx, next); err != nil {
			t.Fatal(err)
		}
		return f.sessionsOf()
	}
	look()
	f.left(f.sessionsOf())

	unlock, err := b.Lock(ctx, "orders-db")
	if err != nil {
		t.Fatal(err)
	}
	first := look()
	if len(strings.Fields(first)) != 1 {
		t.Fatalf("the lock is held, and the sessions %q are kept, want one", first)
	}
	if again := look(); again != first {
		t.Errorf("the session is %s, want the one that is kept, %s", again, first)
	}

	f.exec("postgres", fmt.Sprintf("select pg_terminate_backend(%s, 5000)", first))
	second := look()
	if second == "" || second == first {
		t.Errorf("after the kept session had ended there is %q, want another one", second)
	}

	password = "another password of the administrator"
	f.exec("postgres", fmt.Sprintf("alter role %s password '%s'", f.admin(), password))
	third := look()
	f.left(second)
	if len(strings.Fields(third)) == 0 || strings.Fields(third)[len(strings.Fields(third))-1] == second {
		t.Errorf("the account is another one, and the session is %s", third)
	}

	kept := f.sessionsOf()
	m, err := b.Draft(next)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Arm(ctx, next, m, time.Time{}); err != nil {
		t.Fatal(err)
	}
	f.left(kept)
	last := look()
	if last == kept {
		t.Errorf("the session %s was silenced, and is used again", last)
	}

	if err := unlock(ctx); err != nil {
		t.Fatal(err)
	}
	f.left(last)
	look()
	f.left(f.sessionsOf())
}

// Kept sessions do not hide what has become of the hosts.
func TestKeptConnectionsSeeAFailover(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
	f.setup()
	standby := f.withStandby(t)
	b, ctx := f.backend(), context.Background()
	if err := standby.WaitCaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	unlock, err := b.Lock(ctx, "orders-db")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unlock(ctx); err != nil {
			t.Error(err)
		}
	}()
	v := rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role}
	if _, err := b.Observe(ctx, v); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Observe(ctx, v); rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(fmt.Sprint(err), "both primaries") {
		t.Errorf("Observe with two primaries = %v, want that it cannot be told", err)
	}
}
