package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestProbeTable shows what each refusal of the server means, one after another
// on one login.
func TestProbeTable(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_connections": "10"}}))
	f.setup()
	b := f.backend()
	v, m := f.prepared(b, 2)
	login := v.Identity
	alter := func(what string) func() {
		return func() { f.exec(f.database, "alter role "+login+" "+what) }
	}
	none := func() {}
	for _, tt := range []struct {
		name         string
		before       func()
		m            rotation.Material
		want         rotation.Answer
		code, reason string
		after        func()
	}{
		{"right", none, m, rotation.Alive, "", "", none},
		{"wrong password", none, material("wrong"), rotation.Dead, "28P01", "password authentication failed", none},
		{"expired", alter("valid until 'yesterday'"), m, rotation.Dead, "28P01", "", alter("valid until 'infinity'")},
		{"NOLOGIN and the right password", alter("nologin"), m, rotation.Unfit, "28000", "no proof", alter("login")},
		{"connection limit 0", alter("connection limit 0"), m, rotation.Inconclusive, "53300", "", alter("connection limit -1")},
		{"no pg_hba line", func() { f.hba("hostssl all keyturn1 127.0.0.1/32 scram-sha-256\n") }, m, rotation.Unfit, "28000", "needs a line such as: hostssl " + f.database + " " + login + " 127.0.0.1/32 scram-sha-256", f.resetHBA},
		{"pg_hba says trust", func() { f.hba("hostssl all all 127.0.0.1/32 trust\n") }, m, rotation.Inconclusive, "", "SCRAM", f.resetHBA},
		{"pg_hba says password", func() { f.hba("hostssl all all 127.0.0.1/32 password\n") }, m, rotation.Inconclusive, "", "SCRAM", f.resetHBA},
		{"no CONNECT", func() { f.exec(f.database, "revoke connect on database "+f.database+" from public") }, m, rotation.Unfit, "42501", "",
			func() { f.exec(f.database, "grant connect on database "+f.database+" to public") }},
		{"membership gone", func() { f.exec(f.database, "revoke "+f.role+" from "+login) }, m, rotation.Unfit, "rights", "acts as \"" + login,
			func() { f.exec(f.database, "grant "+f.role+" to "+login) }},
		{"SET role gone", alter("reset role"), m, rotation.Unfit, "rights", "SET role", alter("set role = '" + f.role + "'")},
		{"BYPASSRLS", alter("bypassrls"), m, rotation.Unfit, "rights", "BYPASSRLS", alter("nobypassrls")},
		{"BYPASSRLS of the role", func() { f.exec(f.database, "alter role "+f.role+" bypassrls") }, m, rotation.Unfit, "rights", f.role + " is BYPASSRLS",
			func() { f.exec(f.database, "alter role "+f.role+" nobypassrls") }},
		{"CREATEROLE of the role", func() { f.exec(f.database, "alter role "+f.role+" createrole") }, m, rotation.Unfit, "rights", f.role + " is CREATEROLE",
			func() { f.exec(f.database, "alter role "+f.role+" nocreaterole") }},
		{"another user mounted", none, rotation.Material{"username": secret.FromString("other"), "password": m["password"]},
			rotation.Inconclusive, "", "not this version's login", none},
		{"nothing mounted", none, rotation.Material{}, rotation.Inconclusive, "", "no field holds a password", none},
		{"a URL of another login", none, dsn("postgres://x:y@pooler/orders"), rotation.Inconclusive, "", "not of this version", none},
		{"out of connections", f.fill, m, rotation.Inconclusive, "53300", "", f.drain},
		{"PASSWORD NULL", alter("password null"), m, rotation.Dead, "28P01", "", none},
		{"SIGSTOP", func() { f.must(f.server.Pause()) }, m, rotation.Inconclusive, "", "", func() { f.must(f.server.Resume()) }},
		{"stopped", func() { f.must(f.server.Stop(context.Background())) }, m, rotation.Inconclusive, "", "refused", none},
	} {
		tt.before()
		begun := time.Now()
		r := f.probe(b, v, tt.m)
		if took := time.Since(begun); took > 9*time.Second {
			t.Errorf("%s: took %v", tt.name, took)
		}
		tt.after()
		if r.Answer != tt.want || r.Endpoints[0].Code != tt.code || !strings.Contains(r.Reason, tt.reason) {
			t.Errorf("%s: Login = %q %q %q, want %q %q …%s…", tt.name, r.Answer, r.Endpoints[0].Code, r.Reason, tt.want, tt.code, tt.reason)
		}
	}
}

// TestAPoolerGetsNoClearPassword: where the channel cannot be bound, a server
// that asks for less than SCRAM is not answered.
func TestAPoolerGetsNoClearPassword(t *testing.T) {
	f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
	f.setup()
	b := f.backend()
	v, m := f.prepared(b, 2)
	spec := b.ProbeSpec(v)
	spec.Settings = []byte(`{"role": "` + f.role + `"}`)
	for method, want := range map[string]rotation.Answer{"scram-sha-256": rotation.Alive, "md5": rotation.Alive, // md5 means SCRAM for such verifiers
		"password": rotation.Inconclusive, "trust": rotation.Inconclusive} {
		f.hba("hostssl all all 127.0.0.1/32 " + method + "\n")
		if r := postgres.Login(context.Background(), spec, m); r.Answer != want {
			t.Errorf("pg_hba says %s: Login = %q (%s), want %q", method, r.Answer, r.Reason, want)
		}
	}
}

func TestProbeOfAnUnknownRole(t *testing.T) {
	f := adopted(t)
	v := rotation.Version{Credential: "orders-db", Number: 9, Identity: "nobody_at_all"}
	if r := f.probe(f.backend(), v, material("x")); r.Answer != rotation.Dead || r.Endpoints[0].Code != "28P01" {
		t.Errorf("Login = %+v, want dead by 28P01", r)
	}
}

func dsn(s string) rotation.Material { return rotation.Material{"dsn": secret.FromString(s)} }

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) hba(lines string) {
	f.t.Helper()
	f.must(f.server.SetHBA("hostssl all postgres 127.0.0.1/32 scram-sha-256\n" + lines))
}

func (f *fixture) resetHBA() { f.must(f.server.ResetHBA()) }

// fill takes every connection that is not reserved.
func (f *fixture) fill() {
	ctx := context.Background()
	for range 20 {
		conn, err := f.server.Connect(ctx, f.role, oldPassword, f.database)
		if err != nil {
			return
		}
		f.held = append(f.held, conn)
	}
	f.t.Fatal("the server does not run out of connections")
}

func (f *fixture) drain() {
	for _, c := range f.held {
		_ = c.Close(context.Background())
	}
	f.held = nil
	for range 100 { // until the backends are gone
		if conn, err := f.server.Connect(context.Background(), f.role, oldPassword, f.database); err == nil {
			_ = conn.Close(context.Background())
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	f.t.Fatal("the connections are not given back")
}

// TestEnvironmentIsIgnored: the variables of libpq must not weaken or bend a connection.
func TestEnvironmentIsIgnored(t *testing.T) {
	f := adopted(t)
	for k, v := range map[string]string{"PGPASSWORD": "x", "PGSSLMODE": "disable", "PGHOST": "nowhere", "PGUSER": "x",
		"PGOPTIONS": "-c role=none", "PGMINPROTOCOLVERSION": "9", "PGCHANNELBINDING": "disable", "PGREQUIREAUTH": "none", "PGSSLROOTCERT": "/nonexistent"} {
		t.Setenv(k, v)
	}
	v, m := f.prepared(f.backend(), 2)
	if r := f.probe(f.backend(), v, m); r.Answer != rotation.Alive {
		t.Errorf("Login = %+v, want alive whatever PG… says", r)
	}
}
