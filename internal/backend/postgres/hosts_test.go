package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestStandby rotates on a primary and a standby: both are asked, sessions on
// both are ended, and a standby that cannot be asked leaves nothing known.
func TestStandby(t *testing.T) {
	ctx := context.Background()
	server := testserver.NewPostgres(t, testserver.PostgresOptions{})
	f := newFixture(t, server)
	f.setup()
	standby := f.withStandby(t)
	f.settings.Admin = strings.Replace(f.settings.Admin, server.Addr()+","+standby.Addr(), standby.Addr()+","+server.Addr(), 1)
	f.options.Patience = 2 * time.Second
	b := f.backend()
	v, m := f.prepared(b, 2)
	if r := f.probe(b, v, m); r.Answer != rotation.Alive || len(r.Endpoints) != 2 {
		t.Fatalf("Login = %+v, want alive at both hosts", r)
	}
	conn, err := standby.Connect(ctx, v.Identity, string(m["password"].Reveal()), f.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if s := f.standing(b, v); len(s.Uses) != 1 || !strings.Contains(s.Uses[0].Detail, standby.Addr()) {
		t.Errorf("Uses = %+v, want the session on the standby", s.Uses)
	}
	f.must(standby.Pause())
	if _, err := b.Observe(ctx, v); rotation.ClassOf(err) != rotation.Unknown {
		t.Errorf("Observe with a frozen standby = %v, want unknown", err)
	}
	if err := b.End(ctx, v, rotation.ToRevoke); rotation.ClassOf(err) != rotation.Unknown {
		t.Errorf("End with a frozen standby = %v, want unknown", err)
	}
	if got := f.text("select rolcanlogin::text from pg_roles where rolname = $1", v.Identity); got != "false" {
		t.Error("the primary was not disarmed, though it could be")
	}
	f.must(standby.Resume())
	if err := b.End(ctx, v, rotation.ToRevoke); err != nil {
		t.Fatal(err)
	}
	if s := f.standing(b, v); s.Status != rotation.Ended || len(s.Uses) > 0 {
		t.Errorf("after End: %+v, want ended without sessions on both hosts", s)
	}
	if r := f.probe(b, v, m); r.Answer != rotation.Dead {
		t.Errorf("Login = %+v, want dead at both hosts", r)
	}
	// A standby that does not replay.
	if err := f.try(standby.AdminURL(), "postgres", "select pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	w, err := b.Identify(ctx, version(3), nil)
	if err != nil {
		t.Fatal(err)
	}
	draft, _ := b.Draft(w)
	err = b.Arm(ctx, w, draft, time.Now().Add(time.Hour))
	if rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(err.Error(), "has not replayed") {
		t.Errorf("Arm with a standby that lags = %v, want unknown", err)
	}
	if err := f.try(standby.AdminURL(), "postgres", "select pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	if err := b.Arm(ctx, w, draft, time.Now().Add(time.Hour)); err != nil {
		t.Errorf("Arm again: %v", err)
	}
	f.endsBesideALaggingStandby(b, standby, w, draft)
	// Only standbys in the URL: no primary.
	f.settings.Admin = strings.Replace(f.settings.Admin, ","+server.Addr(), "", 1)
	if _, err := f.backend().Observe(ctx, w); rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(err.Error(), "no host is a primary") {
		t.Errorf("Observe without a primary = %v, want unknown", err)
	}
}

// endsBesideALaggingStandby: the sessions on the primary are ended, whatever a
// standby that lags is waited for; those on the standby when it knows.
func (f *fixture) endsBesideALaggingStandby(b *postgres.Backend, standby *testserver.Postgres, v rotation.Version, m rotation.Material) {
	f.t.Helper()
	ctx := context.Background()
	here, err := f.connect(v.Identity, m)
	f.must(err)
	defer here.Close(ctx)
	there, err := standby.Connect(ctx, v.Identity, string(m["password"].Reveal()), f.database)
	f.must(err)
	defer there.Close(ctx)
	f.must(f.try(standby.AdminURL(), "postgres", "select pg_wal_replay_pause()"))
	err = b.End(ctx, v, rotation.ToRevoke)
	if rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(err.Error(), "has not replayed") {
		f.t.Errorf("End with a standby that lags = %v, want unknown", err)
	}
	if here.Ping(ctx) == nil {
		f.t.Error("a session on the primary lives on, though only the standby lags")
	}
	if err := there.Ping(ctx); err != nil {
		f.t.Errorf("the session on the standby that does not know of the end: %v", err)
	}
	f.must(f.try(standby.AdminURL(), "postgres", "select pg_wal_replay_resume()"))
	f.must(b.End(ctx, v, rotation.ToRevoke))
	if there.Ping(ctx) == nil {
		f.t.Error("the session on the standby lives on after End")
	}
}

// TestNoRoomForASecondLogin: the overlap may double the sessions.
func TestNoRoomForASecondLogin(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_connections": "10"}}))
	f.setup()
	current := rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role, State: rotation.Current}
	cred := rotation.Credential{Name: "orders-db", Versions: []rotation.Version{current}}
	for range 4 {
		conn, err := f.server.Connect(context.Background(), f.role, oldPassword, f.database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
	}
	err := f.backend().Preflight(context.Background(), cred)
	if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "4 sessions of") || !strings.Contains(rotation.HintOf(err), "max_connections") {
		t.Errorf("Preflight = %v, want refused for want of connections", err)
	}
}
