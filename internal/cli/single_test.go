package cli_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// oneRole are the lines of a credential whose one login gets another password.
var oneRole = []string{"postgres.strategy: single-role", "accept-gap: true"}

// Hard problem 12: one login, whose password is changed. The plan announces the
// gap, the rotation measures it, and both its end and its way back leave the login
// with the one password that the application reads.
func TestSingleRole(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), append(oneRole, "overlap: 1h")...)
	s.ok("adopt", s.name)
	s.shows("single-plan.txt", s.ok("plan", s.name))
	s.ok("prepare", s.name)
	s.ok("validate", s.name)
	s.onePassword("before the cutover")
	s.shows("single-cutover.txt", s.ok("cutover", s.name))
	s.onePassword("after the cutover")
	s.shows("single-rollback-dry.txt", s.ok("rollback", "--dry-run", s.name))
	s.shows("single-rollback.txt", s.ok("rollback", "--reason", "drill", s.name))
	s.onePassword("after the rollback")
	s.ok("rotate", s.name)
	s.ok("cleanup", "--force", "drill", s.name)
	s.onePassword("after the cleanup")
	s.held("1 false, 2 false, 3 true")
	s.ok("audit", "verify")
	b, err := os.ReadFile(s.journal)
	s.must(err)
	s.clean(string(b))
}

// onePassword checks that the application's password is the login's, now.
func (s *shop) onePassword(when string) {
	s.t.Helper()
	l := s.startLoad()
	defer l.cancel()
	time.Sleep(400 * time.Millisecond)
	l.cancel()
	l.done.Wait()
	if len(l.failed) > 0 || l.ok == 0 {
		s.t.Fatalf("%s: %d logins worked, %d failed: %v", when, l.ok, len(l.failed), l.failed)
	}
}

// held checks of which versions verifiers are kept.
func (s *shop) held(want string) {
	s.t.Helper()
	var got string
	s.must(s.pgScanIn(s.name, "select string_agg(version || ' ' || (verifier is not null), ', ' order by version) from keyturn.held", &got))
	if got != want {
		s.t.Errorf("of the versions are verifiers kept: %s, want %s", got, want)
	}
}

// TestCrashMatrixSingle kills keyturn around the records and effects of a rotation
// with a gap. Whoever goes on finds the one login with the one password that the
// application reads, and nothing of another version.
func TestCrashMatrixSingle(t *testing.T) {
	t.Parallel()
	whole := newShop(t, servers.postgres.Get(t), oneRole...)
	whole.ok("adopt", whole.name)
	r := whole.runWith([]string{hooks.CrashAt + "=0"}, "rotate", "--wait", whole.name)
	if r.code != 0 {
		t.Fatalf("the rotation that is not killed fails: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for i, point := range r.points {
		near := strings.Contains(point, "activate") || strings.Contains(point, "move") || strings.Contains(point, "arm") || strings.Contains(point, "end")
		if os.Getenv("KEYTURN_CRASH") != "all" && !(near && strings.Contains(point, "effect")) {
			continue
		}
		t.Run(fmt.Sprintf("%02d %s", i+1, strings.ReplaceAll(point, "/", "-")), func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t), oneRole...)
			s.ok("adopt", s.name)
			r := s.runWith([]string{fmt.Sprintf("%s=%d", hooks.CrashAt, i+1)}, "rotate", "--wait", s.name)
			if r.code != -1 {
				t.Fatalf("keyturn was not killed: exit %d\n%s%s", r.code, r.stdout, r.stderr)
			}
			s.goOn()
			s.onePassword("after the kill and the resume")
			current := s.status().Current
			s.versions(current)
			var kept string
			s.must(s.pgScanIn(s.name, "select coalesce(string_agg(version::text, ', '), '') from keyturn.held where verifier is not null", &kept))
			if kept != strconv.Itoa(current) {
				t.Errorf("verifiers are kept of the versions %s, want %d", kept, current)
			}
		})
	}
}

// TestSwarmSingleRole rotates on a Swarm: the application fails in the gap, and at
// no other time.
func TestSwarmSingleRole(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), append(oneRole, "overlap: 1h"))
	k.ok("adopt", k.name)
	k.ok("prepare", k.name)
	k.ok("validate", k.name)
	k.noneFailed()
	begun := time.Now()
	out := k.ok("cutover", k.name)
	k.settled()
	ended := time.Now()
	gap := regexp.MustCompile(`the gap of "\w+" took ([0-9.a-z]+):`).FindStringSubmatch(out)
	if gap == nil {
		t.Fatalf("cutover says nothing of the gap:\n%s", out)
	}
	took, err := time.ParseDuration(gap[1])
	k.must(err)
	if took <= 0 || took > ended.Sub(begun) {
		t.Errorf("the gap took %s, the cutover %s", took, ended.Sub(begun))
	}
	k.ok("cleanup", "--force", "the test has no hour", k.name)
	k.done(2)
	seen := k.totals()
	for _, f := range seen.Failures {
		if f.Code != "28P01" || f.Time.Before(begun) || f.Time.After(ended) {
			t.Errorf("a login failed outside of the gap, or otherwise: %+v", f)
		}
	}
	t.Logf("a gap of %s: %d logins worked, %d failed", took, seen.OK, seen.Failed)
}
