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

// quick lets probes give up soon.
const quick = "rollout: {health-timeout: 3s}"

// inService returns what the link that applications follow leads to.
func (s *shop) inService() string {
	s.t.Helper()
	to, err := os.Readlink(filepath.Join(s.root, s.name, "current"))
	s.must(err)
	return to
}

// nothingLeft checks that a version that was given up is gone everywhere: its
// directory, and the right of its login to log in.
func (s *shop) nothingLeft(version int, login string) {
	s.t.Helper()
	if _, err := os.Lstat(filepath.Join(s.root, s.name, fmt.Sprintf("v%d", version))); !os.IsNotExist(err) {
		s.t.Errorf("the directory of version %d is still there: %v", version, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := s.pg.Connect(ctx, testserver.AdminUser, s.pg.AdminPassword(), "postgres")
	s.must(err)
	defer conn.Close(ctx)
	var dead bool
	s.must(conn.QueryRow(ctx, `select not rolcanlogin and rolpassword is null and rolvaliduntil = '-infinity'
		from pg_authid where rolname = $1`, login).Scan(&dead))
	if !dead {
		s.t.Errorf("login %q of version %d, which was given up, is not disarmed", login, version)
	}
	if p := s.status(); p.Pending != 0 || p.Previous != 0 || p.Next != "" || p.Queue != 0 {
		s.t.Errorf("status is %+v, want no rotation open", p)
	}
}

// TestValidationFails takes from the new login what it needs, between prepare
// and validate: everything is rolled back, nothing was restarted, and the next
// rotation works.
func TestValidationFails(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		break_, fix func(s *shop) []string
		says        []string
	}{
		{"membership revoked",
			func(s *shop) []string { return []string{fmt.Sprintf("revoke %[1]s from %[1]s_a", s.name)} },
			func(s *shop) []string { return []string{fmt.Sprintf("grant %[1]s to %[1]s_a", s.name)} },
			[]string{"rolled back"}},
		{"no SET role",
			func(s *shop) []string { return []string{fmt.Sprintf("alter role %s_a reset role", s.name)} },
			func(s *shop) []string { return []string{fmt.Sprintf("alter role %[1]s_a set role = %[1]s", s.name)} },
			[]string{"rolled back", "version 2 is unfit where the current one works", "the membership or the SET role is missing"}},
		{"another setting",
			func(s *shop) []string { return []string{fmt.Sprintf("alter role %s_a set work_mem = '5MB'", s.name)} },
			func(s *shop) []string { return []string{fmt.Sprintf("alter role %s_a reset work_mem", s.name)} },
			[]string{"rolled back", "work_mem"}},
		{"password changed by somebody",
			func(s *shop) []string { return []string{fmt.Sprintf("alter role %s_a password 'another'", s.name)} },
			nil,
			[]string{"rolled back", "version 2 is dead where the current one works"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t), quick)
			s.ok("adopt", s.name)
			l := s.startLoad()
			s.ok("prepare", s.name)
			s.sql("postgres", tt.break_(s)...)
			s.fails(1, tt.says, "validate", s.name)
			if got := s.inService(); got != "initial" {
				t.Errorf("current leads to %q, want %q", got, "initial")
			}
			if tt.fix != nil {
				s.sql("postgres", tt.fix(s)...)
			}
			s.nothingLeft(2, s.name+"_a")
			s.ok("rotate", "--wait", s.name)
			l.stop(t)
			s.finished(3)
		})
	}
}

// TestWayBackNeedsHelp makes the new login a superuser, whom the administrator
// may not touch: that is said, and the rollback goes on when it was helped.
func TestWayBackNeedsHelp(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), quick)
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.ok("prepare", s.name)
	s.sql("postgres", fmt.Sprintf("alter role %s_a superuser", s.name))
	s.fails(4, []string{"is SUPERUSER", "undoing prepare", "keyturn rollback"}, "validate", s.name)
	s.sql("postgres", fmt.Sprintf("alter role %s_a nosuperuser", s.name))
	s.ok("rollback", "--reason", "the right was taken away", s.name)
	s.nothingLeft(2, s.name+"_a")
	s.ok("rotate", "--wait", s.name)
	l.stop(t)
	s.finished(3)
}

// TestPasswordRefusedByHBA changes pg_hba.conf between prepare and validate.
func TestPasswordRefusedByHBA(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
	s := newShop(t, pg, quick)
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.ok("prepare", s.name)
	s.must(pg.SetHBA("local all all scram-sha-256\nhostssl all " + s.name + "_a all reject\n" + testserver.DefaultHBA))
	s.fails(1, []string{"rolled back", "pg_hba.conf"}, "validate", s.name)
	s.nothingLeft(2, s.name+"_a")

	// The same between validate and cutover.
	s.must(pg.ResetHBA())
	s.ok("prepare", s.name)
	s.ok("validate", s.name)
	s.must(pg.SetHBA("local all all scram-sha-256\nhostssl all " + s.name + "_a all reject\n" + testserver.DefaultHBA))
	s.fails(1, []string{"rolled back", "pg_hba.conf"}, "cutover", s.name)
	s.nothingLeft(3, s.name+"_a")
	if got := s.inService(); got != "initial" {
		t.Errorf("current leads to %q, want %q", got, "initial")
	}
	s.must(pg.ResetHBA())
	s.ok("rotate", "--wait", s.name)
	l.stop(t)
	s.finished(4)
}

// TestRestartCommandFails lets the restart command fail where the application
// would not start with the new version: everything goes back.
func TestRestartCommandFails(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.write(fmt.Sprintf(`restart: [sh, -c, 'test "$(readlink %s)" != v2']`, filepath.Join(s.root, s.name, "current")))
	s.ok("adopt", s.name)
	if out := s.ok("plan"); !strings.Contains(out, "one atomic move, then run: sh -c test") || strings.Contains(out, "be restarted") {
		t.Errorf("the plan does not say what is run after the move:\n%s", out)
	}
	l := s.startLoad()
	s.fails(1, []string{"rolled back", `the command "sh"`, "hint: run the command by hand"}, "rotate", s.name)
	if got := s.inService(); got != "initial" {
		t.Errorf("current leads to %q, want %q", got, "initial")
	}
	s.nothingLeft(2, s.name+"_a")
	s.ok("rotate", "--wait", s.name)
	l.stop(t)
	s.finished(3)
}

// TestRestartCommandNeverWorks lets the way back fail too: then the run says
// that it is stuck, and the next one goes on from there when the command works.
func TestRestartCommandNeverWorks(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	works := filepath.Join(t.TempDir(), "works")
	s.write("restart: [test, -e, " + works + "]")
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.fails(4, []string{`the command "test"`, "hint: "}, "rotate", s.name)
	if p := s.status(); p.Current != 1 || p.Pending != 2 || p.Next != "rollback" {
		t.Errorf("status is %+v, want a rollback under way", p)
	}
	s.must(os.WriteFile(works, nil, 0o600))
	s.ok("rollback", "--reason", "the command works again", s.name)
	s.nothingLeft(2, s.name+"_a")
	s.ok("rotate", "--wait", s.name)
	l.stop(t)
	s.finished(3)
}
