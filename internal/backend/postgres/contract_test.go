package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestContract is what every backend must keep, on a real server of each part's own.
func TestContract(t *testing.T) {
	rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
		f := newFixture(t, testserver.NewPostgres(t, testserver.PostgresOptions{}))
		f.setup()
		setup := f.contract(f.backend(func(o *postgres.Options) { o.Patience = 3 * time.Second }))
		setup.Claims = &rotationtest.Claims{Kind: "PostgreSQL: logins in turn", Page: "postgres.md",
			Dead: "disarmed three ways and without a session in the administrator's view, `28P01` on the primary, every replica and through the pooler"}
		return setup
	})
}

// contract returns a backend of the fixture's, with what its contract test needs.
func (f *fixture) contract(b rotation.Backend) rotationtest.Setup {
	return rotationtest.Setup{
		Backend:    b,
		Credential: "orders-db",
		Login:      postgres.Login,
		Session: func(_ *testing.T, v rotation.Version, m rotation.Material) func() bool {
			return f.session(v, m)
		},
		Break: map[string]func(*testing.T) func(){
			"stopped": func(t *testing.T) func() {
				f.must(f.server.Stop(context.Background()))
				return func() { f.must(f.server.Start(context.Background())) }
			},
			"paused": func(t *testing.T) func() {
				f.must(f.server.Pause())
				return func() { f.must(f.server.Resume()) }
			},
		},
		Changes: func(*testing.T) string {
			return f.text(`select string_agg(r::text || coalesce(shobj_description(r.oid, 'pg_authid'), ''), ' ' order by rolname) from pg_authid r`)
		},
	}
}

// session opens a session, and returns whether it still lives.
func (f *fixture) session(v rotation.Version, m rotation.Material) func() bool {
	f.t.Helper()
	conn, err := f.connect(v.Identity, m)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return func() bool { return conn.Ping(context.Background()) == nil }
}
