package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// TestThroughPgBouncer rotates twice behind PgBouncer in transaction pooling. New
// logins never fail; a client that stays connected is found, and so is what the
// pooler keeps alive of it; at the end nothing of the old login is left, and the
// pooler refuses it.
func TestThroughPgBouncer(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
	s := newShop(t, pg, "overlap: 1s", "grace: 1h")
	pooler := testserver.NewPgBouncer(t, pg, s.name, "query_wait_timeout = 2")
	b, err := os.ReadFile(s.config)
	s.must(err)
	s.must(os.WriteFile(s.config, []byte(strings.Replace(string(b), "      role: ", "      probe: [\"postgres://"+pooler.Addr()+"/"+s.name+"\"]\n      role: ", 1)), 0o600))
	port := filepath.Join(s.root, s.name, "initial", "port")
	s.must(os.Remove(port))
	s.must(os.WriteFile(port, []byte(pooler.Addr()[strings.Index(pooler.Addr(), ":")+1:]), 0o400))
	s.ok("adopt", s.name)
	stop, failed, tried := make(chan struct{}), []string{}, 0
	done := make(chan struct{})
	ctx, values := context.Background(), map[string]bool{}
	go func() {
		defer close(done)
		for {
			conn, err := s.login(ctx, pooler.Addr())
			if err == nil {
				_, err = conn.Exec(ctx, "select count(*) from items")
				_ = conn.Close(ctx)
			}
			if tried++; err != nil {
				failed = append(failed, err.Error())
			}
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	for version := 2; version <= 3; version++ {
		stays, err := s.login(ctx, pooler.Addr()) // a client of the old login that does not go
		s.must(err)
		_, err = stays.Exec(ctx, "select 1")
		s.must(err)
		old := stays.Config().User
		s.ok("rotate", s.name)
		time.Sleep(time.Second) // the overlap
		s.fails(3, []string{fmt.Sprintf("cleanup waits for sessions of version %d: ", version-1), " pid "}, "cleanup", s.name)
		for _, v := range s.values() {
			values[v] = true
		}
		s.ok("cleanup", "--force", "the pooler keeps it", s.name)
		var sessions int
		s.must(s.pgScan(fmt.Sprintf("select count(*) from pg_stat_activity where usename = '%s'", old), &sessions))
		if sessions != 0 {
			t.Errorf("%s has %d sessions", old, sessions)
		}
		if _, err := stays.Exec(ctx, "select 1"); err == nil {
			t.Errorf("a client of %s that stayed works on", old)
		}
		_ = stays.Close(ctx)
		s.finished(version)
	}
	close(stop)
	<-done
	log, err := os.ReadFile(pooler.LogFile())
	s.must(err)
	if !strings.Contains(string(log), s.name+"_b") || len(values) < 2 {
		t.Errorf("the pooler's log tells of no login, or there is nothing to look for (%d values)", len(values))
	}
	for v := range values {
		if strings.Contains(string(log), v) {
			t.Error("a value stands in the pooler's log")
		}
	}
	if len(failed) > 0 || tried < 20 {
		t.Errorf("%d of %d logins failed: %q", len(failed), tried, failed[:min(3, len(failed))])
	}
}
