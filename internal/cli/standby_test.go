package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/rotated"
	"github.com/keyturn/keyturn/rotated/rotatedpgx"

	"github.com/keyturn/keyturn/internal/testserver"
)

// TestStandby rotates twice where services read from a streaming standby: no login
// fails there either, the sessions of the old login are ended on both servers, and
// the proof of its death is of both.
func TestStandby(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
	standby, err := pg.StartStandby(ctx, testserver.PostgresOptions{})
	testserver.Require(t, err)
	t.Cleanup(func() {
		if err := standby.Remove(); err != nil {
			t.Errorf("removing the standby: %v", err)
		}
	})
	s := newShop(t, pg, "overlap: 1s", "grace: 1h")
	s.must(standby.WaitCaughtUp(ctx))
	b, err := os.ReadFile(s.config)
	s.must(err)
	both := strings.Replace(string(b), "@"+pg.Addr()+"/", "@"+pg.Addr()+","+standby.Addr()+"/", 1)
	if both == string(b) {
		t.Fatal("the configuration does not name the server")
	}
	s.must(os.WriteFile(s.config, []byte(both), 0o600))
	l := s.startLoadAt(standby)
	s.ok("adopt", s.name)
	for version := 2; version <= 3; version++ {
		old, err := s.login(ctx, standby.Addr())
		s.must(err)
		s.ok("rotate", s.name)
		time.Sleep(time.Second) // the overlap
		s.fails(3, []string{fmt.Sprintf("cleanup waits for sessions of version %d: ", version-1), standby.Addr()}, "cleanup", s.name)
		s.ok("cleanup", "--force", "a session stays", s.name)
		if _, err := old.Exec(ctx, "select 1"); err == nil {
			t.Error("the session at the standby works on")
		}
		_ = old.Close(ctx)
		s.finished(version)
	}
	l.stop(t)
	journal, err := os.ReadFile(s.journal)
	s.must(err)
	for line := range strings.Lines(string(journal)) {
		if strings.Contains(line, `"step":"proof"`) && strings.Contains(line, `"status":"done"`) {
			if !strings.Contains(line, pg.Addr()) || !strings.Contains(line, standby.Addr()) {
				t.Errorf("a proof does not name both servers:\n%s", line)
			}
		}
	}
	if n := strings.Count(string(journal), `"step":"proof"`); n < 2 {
		t.Errorf("the journal has %d records of proofs, want 2 at least", n)
	}
}

// login logs in at a server or a pooler, by an address of it, with what the
// directory holds.
func (s *shop) login(ctx context.Context, at string) (*pgx.Conn, error) {
	cred, err := rotated.Dir(filepath.Join(s.root, s.name), "username", "password").Current(ctx)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(strings.Replace(s.pg.URL("nobody", "", s.name), s.pg.Addr(), at, 1))
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	if err := rotatedpgx.Apply(cred, config); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}
