package postgres_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
)

// load opens new connections as the current version until it is stopped, and
// writes through each.
type load struct {
	current  atomic.Pointer[credential]
	ok, bad  atomic.Int64
	stop     chan struct{}
	wg       sync.WaitGroup
	firstBad atomic.Pointer[string]
}

type credential struct {
	login string
	m     rotation.Material
}

func (f *fixture) load(login string, m rotation.Material) *load {
	l := &load{stop: make(chan struct{})}
	l.current.Store(&credential{login, m})
	for range 3 {
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(60 * time.Millisecond):
				}
				if err := f.once(l.current.Load()); err != nil {
					l.bad.Add(1)
					text := err.Error()
					l.firstBad.CompareAndSwap(nil, &text)
					continue
				}
				l.ok.Add(1)
			}
		})
	}
	return l
}

func (f *fixture) once(c *credential) error {
	conn, err := f.connect(c.login, c.m)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), "insert into items (name) values ('x')")
	return err
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	if l.bad.Load() > 0 || l.ok.Load() < 20 {
		t.Errorf("%d logins worked and %d failed, want many and none: %v", l.ok.Load(), l.bad.Load(), *l.firstBad.Load())
	}
}

// TestTwoRotationsWithoutAFailedLogin adopts a plain login that owns its table
// and rotates twice, under load.
func TestTwoRotationsWithoutAFailedLogin(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	current, err := b.Adopt(ctx, version(1))
	if err != nil {
		t.Fatal(err)
	}
	if current.Identity != f.role || current.Public["username"] != f.role || current.Public["database"] != f.database {
		t.Errorf("Adopt = %+v, want the role %q as identity", current, f.role)
	}
	m := material(oldPassword)
	if r := f.probe(b, current, m); r.Answer != rotation.Alive {
		t.Fatalf("the adopted login is %+v, want alive", r)
	}
	traffic := f.load(f.role, m)
	cred := rotation.Credential{Name: "orders-db", Versions: []rotation.Version{current}}
	cred.Versions[0].State = rotation.Current
	if err := b.Preflight(ctx, cred); err != nil {
		t.Errorf("Preflight: %v", err)
	}
	for n, wantLogin := range []string{f.role + "_a", f.role + "_b", f.role + "_a"} {
		next, nextM := f.prepared(b, n+2, current)
		if next.Identity != wantLogin {
			t.Fatalf("version %d takes %q, want %q", n+2, next.Identity, wantLogin)
		}
		if s := f.standing(b, next); s.Status != rotation.Expiring || time.Until(s.Until).Round(time.Minute) != time.Hour {
			t.Errorf("after Arm: %+v, want expiring in an hour", s)
		}
		if r := f.probe(b, next, nextM); r.Answer != rotation.Alive {
			t.Fatalf("the new version is %+v, want alive", r)
		}
		if err := b.Compare(ctx, next, current); err != nil {
			t.Errorf("Compare: %v", err)
		}
		if err := b.Expire(ctx, next, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if s := f.standing(b, next); s.Status != rotation.Armed {
			t.Errorf("after Expire to never: %+v, want armed", s)
		}
		traffic.current.Store(&credential{next.Identity, nextM})
		time.Sleep(150 * time.Millisecond) // the last logins of the old one
		if err := b.Expire(ctx, current, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a second time is success, too
			if err := b.End(ctx, current, rotation.ToRetire); err != nil {
				t.Fatal(err)
			}
		}
		if s := f.standing(b, current); s.Status != rotation.Ended || len(s.Uses) != 0 {
			t.Errorf("after End: %+v, want ended without uses", s)
		}
		if r := f.probe(b, current, m); r.Answer != rotation.Dead || r.Endpoints[0].Code != "28P01" {
			t.Errorf("the old version is %+v, want dead by 28P01", r)
		}
		current, m = next, nextM
	}
	traffic.end(t)
	if owner := f.text("select string_agg(distinct tableowner, ',') from pg_tables where schemaname = $1", f.role); owner != f.role {
		t.Errorf("tables belong to %q, want %q: nothing may move", owner, f.role)
	}
}

// TestCopiedSettings shows that logins have the role's settings and limits, for
// each database too, and act as the role.
func TestCopiedSettings(t *testing.T) {
	f := adopted(t)
	b := f.backend()
	v, m := f.prepared(b, 2, rotation.Version{Number: 1, Identity: f.role})
	conn, err := f.connect(v.Identity, m)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var got [4]string
	err = conn.QueryRow(context.Background(), `select current_user, current_setting('search_path'), current_setting('work_mem'), current_schema()`).
		Scan(&got[0], &got[1], &got[2], &got[3])
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([4]string{f.role, `"$user", public`, "5MB", f.role}, got); d != "" {
		t.Errorf("a login's session (-want +got):\n%s", d)
	}
	if limit := f.text("select rolconnlimit::text from pg_roles where rolname = $1", v.Identity); limit != "40" {
		t.Errorf("connection limit %s, want the role's 40", limit)
	}
}

// TestWhoActs shows as whom a login acts after everything that poolers and
// drivers do to a session: as the role, unless it says SET ROLE NONE, which the
// next reset undoes.
func TestWhoActs(t *testing.T) {
	f := adopted(t)
	ctx := context.Background()
	v, m := f.prepared(f.backend(), 2)
	conn, err := f.connect(v.Identity, m)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, tt := range []struct{ statement, acts string }{
		{"select 1", f.role}, {"reset role", f.role}, {"reset all", f.role}, {"discard all", f.role},
		{"set session authorization default", f.role}, {"reset session authorization", f.role},
		{"set role none", v.Identity}, {"reset role", f.role},
		{"set role none", v.Identity}, {"discard all", f.role},
		{"set session authorization " + v.Identity, v.Identity}, {"discard all", f.role},
	} {
		var session, current string
		if _, err := conn.Exec(ctx, tt.statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", tt.statement, err)
		}
		if err := conn.QueryRow(ctx, "select session_user, current_user", pgx.QueryExecModeSimpleProtocol).Scan(&session, &current); err != nil {
			t.Fatal(err)
		}
		if session != v.Identity || current != tt.acts {
			t.Errorf("after %q %q acts as %q, want %q as %q", tt.statement, session, current, v.Identity, tt.acts)
		}
	}
	// What it makes after a reset belongs to the role.
	if _, err := conn.Exec(ctx, "create table "+f.role+".made (id int)"); err != nil {
		t.Fatal(err)
	}
	if owner := f.text("select tableowner from pg_tables where tablename = 'made' and schemaname = $1", f.role); owner != f.role {
		t.Errorf("a table made by %q belongs to %q, want %q", v.Identity, owner, f.role)
	}
}

func TestRetiredPasswordIsNotRevivedByLogin(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	v := rotation.Version{Credential: "orders-db", Number: 1, Identity: f.role}
	if err := b.End(ctx, v, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	f.exec(f.database, "alter role "+f.role+" login valid until 'infinity'")
	if r := f.probe(b, v, material(oldPassword)); r.Answer != rotation.Dead {
		t.Errorf("after somebody's LOGIN the old password is %+v, want dead", r)
	}
	if s := f.standing(b, v); s.Status == rotation.Ended {
		t.Errorf("Observe = %+v, want anything but ended: it was revived", s)
	}
}

// TestEndLeavesOthersAlone shows that a version cannot end a login that has
// gone to a later one, nor one that somebody armed by hand.
func TestEndLeavesOthersAlone(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	old, _ := f.prepared(b, 2)
	if err := b.End(ctx, old, rotation.ToDiscard); err != nil {
		t.Fatal(err)
	}
	now, m := f.prepared(b, 3)
	if now.Identity != old.Identity {
		t.Fatalf("version 3 takes %q, want the free %q", now.Identity, old.Identity)
	}
	if s := f.standing(b, old); s.Status != rotation.Absent {
		t.Errorf("Observe(2) = %+v, want absent: the login is version 3's", s)
	}
	if err := b.End(ctx, old, rotation.ToRetire); err != nil {
		t.Errorf("End of a version that is gone: %v, want success", err)
	}
	if r := f.probe(b, now, m); r.Answer != rotation.Alive {
		t.Errorf("version 3 is %+v, want alive", r)
	}
	// Its number is burnt: a call that was late cannot bring it back.
	if err := b.End(ctx, now, rotation.ToDiscard); err != nil {
		t.Fatal(err)
	}
	err := b.Arm(ctx, now, m, time.Now().Add(time.Hour))
	if rotation.ClassOf(err) != rotation.Refused || !strings.Contains(err.Error(), "version 3 was ended on "+now.Identity+" already") {
		t.Errorf("Arm after End = %v, want refused: the number is burnt", err)
	}
}

// TestEndBeforeTheLateArm: the arming timed out, the version is discarded, and
// only then does the arming arrive (hard problem 42).
func TestEndBeforeTheLateArm(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	v, err := b.Identify(ctx, version(4), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.End(ctx, v, rotation.ToDiscard); err != nil {
		t.Fatal(err)
	}
	m, _ := b.Draft(v)
	if err := b.Arm(ctx, v, m, time.Now().Add(time.Hour)); err == nil {
		t.Error("Arm succeeded after the version was discarded")
	}
	if s := f.standing(b, v); s.Status != rotation.Ended {
		t.Errorf("Observe = %+v, want ended", s)
	}
}

func TestEndEndsSessions(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	v, m := f.prepared(b, 2)
	for range 3 {
		conn, err := f.connect(v.Identity, m)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
	}
	s := f.standing(b, v)
	if len(s.Uses) != 3 || s.Uses[0].Kind != "session" || !strings.Contains(s.Uses[0].Detail, f.database) {
		t.Errorf("Uses = %+v, want three sessions", s.Uses)
	}
	f.options.Settle = time.Second
	b = f.backend()
	begun := time.Now()
	if err := b.End(ctx, v, rotation.ToRevoke); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < f.options.Settle {
		t.Errorf("End took %v, less than the time between two readings", took)
	}
	if s := f.standing(b, v); s.Status != rotation.Ended || len(s.Uses) > 0 {
		t.Errorf("after End: %+v, want ended without sessions", s)
	}
}

func TestExpiryEndsLoginsAndIsLifted(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	v, m := f.prepared(b, 2)
	if err := b.Expire(ctx, v, time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if s := f.standing(b, v); s.Status != rotation.Expiring || !s.Until.Before(time.Now()) {
		t.Errorf("after its time: %+v, want expiring in the past", s)
	}
	if r := f.probe(b, v, m); r.Answer != rotation.Dead {
		t.Errorf("after its time the version is %+v, want dead", r)
	}
	if err := b.Expire(ctx, v, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if r := f.probe(b, v, m); r.Answer != rotation.Alive {
		t.Errorf("after lifting the version is %+v, want alive", r)
	}
}
