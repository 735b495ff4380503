package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// TestCrashMatrixDirectory kills keyturn with -9 before and after every record
// and every effect of a rotation, lets it go on from another folder with only
// the journal, and shows that a working credential was in service at every
// moment, and that nothing is left over. Without KEYTURN_CRASH=all it is every
// eighth of these points.
func TestCrashMatrixDirectory(t *testing.T) {
	t.Parallel()
	pg := servers.postgres.Get(t)
	whole := newShop(t, pg)
	whole.ok("adopt", whole.name)
	r := whole.runWith([]string{hooks.CrashAt + "=0"}, "rotate", "--wait", whole.name)
	if r.code != 0 {
		t.Fatalf("the rotation that is not killed fails: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	whole.finished(2)
	if len(r.points) < 40 {
		t.Fatalf("only %d points to be killed at: %q", len(r.points), r.points)
	}
	for i, point := range r.points {
		if i%16 != 0 && i%16 != 9 && os.Getenv("KEYTURN_CRASH") != "all" {
			continue // the points come in pairs, before and after: of every fourth pair one, the former and the latter in turn
		}
		t.Run(fmt.Sprintf("%02d %s", i+1, strings.ReplaceAll(point, "/", "-")), func(t *testing.T) {
			t.Parallel()
			crashed(t, i+1)
		})
	}
}

func crashed(t *testing.T, at int) {
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	l := s.startLoad()
	r := s.runWith([]string{fmt.Sprintf("%s=%d", hooks.CrashAt, at)}, "rotate", "--wait", s.name)
	if r.code != -1 {
		t.Fatalf("keyturn was not killed: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	s.goOn()
	l.stop(t)
	p := s.status()
	if p.Current != 2 && p.Current != 3 {
		t.Fatalf("after the kill and the resume: %+v", p)
	}
	s.finished(p.Current)
}

// everyCrash has run make a whole rotation, which is killed nowhere (0), and then one for each
// point that it passed, which is killed there. Without KEYTURN_CRASH=all it is those of the
// sample alone.
func everyCrash(t *testing.T, sample func(i int) bool, run func(t *testing.T, at int) result) {
	t.Helper()
	points := run(t, 0).points
	if len(points) < 40 {
		t.Fatalf("only %d points to be killed at: %q", len(points), points)
	}
	for i, point := range points {
		if !sample(i) && os.Getenv("KEYTURN_CRASH") != "all" {
			continue
		}
		t.Run(fmt.Sprintf("%02d %s", i+1, strings.ReplaceAll(point, "/", "-")), func(t *testing.T) { run(t, i+1) })
	}
}

// oneOfEight is a sample: the points come in pairs, before and after, and it is the former
// and the latter in turn.
func oneOfEight(i int) bool { return i%16 == 0 || i%16 == 9 }

// oneOfSixteen is one for what takes long at each point.
func oneOfSixteen(i int) bool { return i%32 == 16 || i%32 == 25 }

// killedAt rotates, is killed at a point (0: nowhere), and goes on until the rotation is
// closed. Stop ends the use of the credential, which must never have failed.
func (s *shop) killedAt(at int, stop func() (tried int, failures []string)) result {
	s.t.Helper()
	r := s.rotatedFrom(at)
	if tried, failures := stop(); tried == 0 || len(failures) > 0 {
		s.t.Errorf("of %d uses failed: %q", tried, failures)
	}
	s.versions(s.status().Current)
	s.ok("audit", "verify")
	return r
}

// rotatedFrom rotates, is killed at a point (0: nowhere), and goes on until the rotation is closed.
func (s *shop) rotatedFrom(at int) result {
	s.t.Helper()
	r := s.runWith([]string{fmt.Sprintf("%s=%d", hooks.CrashAt, at)}, "rotate", "--wait", s.name)
	if want := map[bool]int{true: 0, false: -1}[at == 0]; r.code != want {
		s.t.Fatalf("exit %d, want %d\n%s%s", r.code, want, r.stdout, r.stderr)
	}
	s.goOn()
	return r
}

// again tries something, with a pause between, until it is told to stop; it returns how often
// it counted, and what failed.
func again(pause time.Duration, try func() (counts bool, err error)) (stop func() (tried int, failures []string)) {
	ended, done := make(chan struct{}), make(chan struct{})
	var tried int
	var failures []string
	go func() {
		defer close(done)
		for {
			counts, err := try()
			if counts {
				tried++
			}
			if err != nil {
				failures = append(failures, err.Error())
			}
			select {
			case <-ended:
				return
			case <-time.After(pause):
			}
		}
	}()
	return func() (int, []string) {
		close(ended)
		<-done
		return tried, failures
	}
}

// overlap is how long both versions work, where a test's configuration says "overlap: 1s".
const overlap = time.Second

// inOverlap tries something with the version that the directory holds. It may fail if that is
// another version's place by now, and has been for longer than the overlap: on a busy machine, and
// while a cluster elects, something takes that long.
func (s *shop) inOverlap(try func(dir string) error) error {
	current := filepath.Join(s.root, s.name, "current")
	dir, err := filepath.EvalSymlinks(current)
	if err != nil {
		return err
	}
	if err = try(dir); err == nil {
		return nil
	}
	link, err2 := os.Lstat(current)
	now, err3 := filepath.EvalSymlinks(current)
	if err2 == nil && err3 == nil && now != dir && time.Since(link.ModTime()) > overlap {
		return nil
	}
	return err
}

// goOn runs what status says comes next until no rotation is open. If the kill
// came before one was, it begins one.
func (s *shop) goOn() {
	s.t.Helper()
	for range 20 {
		p := s.status()
		if p.Next == "" && p.Current > 1 {
			return
		}
		phase := p.Next
		if phase == "" {
			phase = "prepare"
		}
		if r := s.run(phase, s.name); r.code == 3 && phase == "cleanup" {
			time.Sleep(300 * time.Millisecond) // the overlap is not over
		} else if r.code != 0 {
			s.t.Fatalf("keyturn %s: exit %d\n%s%s", phase, r.code, r.stdout, r.stderr)
		}
	}
	s.t.Fatalf("the rotation does not end: %+v", s.status())
}

// finished checks that one version is in service and everything of the others gone.
func (s *shop) finished(current int) {
	s.t.Helper()
	s.versions(current)
	s.oneLogin()
	s.ok("audit", "verify")
	b, err := os.ReadFile(s.journal)
	s.must(err)
	s.clean(string(b))
}

// versions checks that the record and the directory know of one version alone.
func (s *shop) versions(current int) {
	s.t.Helper()
	p := s.status()
	if p.Current != current || p.Pending != 0 || p.Previous != 0 || p.Queue != 0 {
		s.t.Errorf("status is %+v, want only version %d", p, current)
	}
	entries, err := os.ReadDir(filepath.Join(s.root, s.name))
	s.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"current", fmt.Sprintf("v%d", current)}; !slices.Equal(names, want) {
		s.t.Errorf("the directory holds %q, want %q", names, want)
	}
}

// oneLogin checks that one login of the credential can log in, and that the
// adopted one is dead in all three ways.
func (s *shop) oneLogin() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := s.pg.Connect(ctx, "postgres", s.pg.AdminPassword(), "postgres")
	s.must(err)
	defer conn.Close(ctx)
	var can, dead int
	s.must(conn.QueryRow(ctx, `select
		count(*) filter (where rolcanlogin and rolpassword is not null and (rolvaliduntil is null or rolvaliduntil > now())),
		count(*) filter (where rolname = $1 and not rolcanlogin and rolpassword is null and rolvaliduntil = '-infinity')
		from pg_authid where rolname = $1 or rolname like $1 || '\_%'`, s.name).Scan(&can, &dead))
	if can != 1 || dead != 1 {
		s.t.Errorf("%d logins can log in, want 1; %d adopted ones are dead, want 1", can, dead)
	}
}
