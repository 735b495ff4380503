package cli_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// soon is how long a cancelled run may take to end: a CI runner kills it after
// ten seconds, 7.5 of them after its first signal.
const soon = 5 * time.Second

// cancelled ends a run by a signal and checks how it ended.
func (r *running) cancelled(sig syscall.Signal) {
	r.t.Helper()
	begun := time.Now()
	r.signal(sig)
	time.Sleep(50 * time.Millisecond) // the signal is taken before the program goes on
	r.goOn()
	got := r.wait()
	took := time.Since(begun)
	if got.code != 130 || took > soon {
		r.t.Errorf("keyturn %v: exit %d after %s, want 130 in less than %s\n%s%s", r.cmd.Args[3:], got.code, took, soon, got.stdout, got.stderr)
	}
	// A rollback undoes, and prepare what an earlier one left.
	mayUndo := slices.Contains(r.cmd.Args, "rollback") || slices.Contains(r.cmd.Args, "prepare")
	if want := "cancelled: safe to run it again; where it stands: keyturn status"; !strings.Contains(got.stderr, want) || !mayUndo && strings.Contains(got.stderr, "undo ") {
		r.t.Errorf("keyturn %v: stderr lacks %q, or tells of an undo:\n%s", r.cmd.Args[3:], want, got.stderr)
	}
}

// TestCancellation cancels each phase in its midst, before and after an effect:
// nothing is undone, and the next run, in another folder, goes on.
func TestCancellation(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	s.ok("adopt", s.name)
	l := s.startLoad()
	tests := []struct {
		phase, point string
		sig          syscall.Signal
		pending      int // after the cancellation
		service      string
	}{
		{"prepare", "before effect: prepare preflight", syscall.SIGINT, 0, "initial"},
		{"prepare", "after effect: prepare put", syscall.SIGTERM, 2, "initial"},
		{"prepare", "before effect: prepare arm", syscall.SIGINT, 3, "initial"},
		{"validate", "before effect: validate probe", syscall.SIGINT, 4, "initial"},
		{"validate", "after effect: validate rights", syscall.SIGTERM, 4, "initial"},
		{"cutover", "before effect: cutover lift bound", syscall.SIGTERM, 4, "initial"},
		{"cutover", "after record: cutover move started", syscall.SIGINT, 4, "initial"},
		{"cutover", "after effect: cutover move", syscall.SIGINT, 4, "v4"},
		{"cutover", "before effect: cutover expire old", syscall.SIGTERM, 4, "v4"},
	}
	for _, tt := range tests {
		s.start(tt.point, tt.phase, s.name).cancelled(tt.sig)
		if p := s.status(); p.Current != 1 || p.Pending != tt.pending || p.Queue != 0 {
			t.Errorf("%v cancelled at %q: status is %+v, want version 1 current and %d pending", tt.phase, tt.point, p, tt.pending)
		}
		if got := s.inService(); got != tt.service {
			t.Errorf("%v cancelled at %q: current leads to %q, want %q", tt.phase, tt.point, got, tt.service)
		}
		if strings.Contains(tt.point, "prepare arm") || strings.Contains(tt.point, "rights") {
			s.ok(tt.phase, s.name)
		}
	}
	s.ok("cutover", s.name)
	for _, point := range []string{"after effect: cleanup end", "before effect: cleanup proof", "before effect: cleanup remove"} {
		time.Sleep(time.Second) // the overlap
		s.start(point, "cleanup", s.name).cancelled(syscall.SIGINT)
	}
	s.ok("cleanup", s.name)
	l.stop(t)
	s.finished(4)
}

// TestCancellationOfRollback cancels a way back; whoever comes next brings it
// to its end.
func TestCancellationOfRollback(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.ok("rotate", s.name)
	for _, point := range []string{"before effect: rollback probe old", "after effect: rollback move back", "after undo: prepare arm"} {
		s.start(point, "rollback", "--reason", "drill", s.name).cancelled(syscall.SIGINT)
	}
	s.ok("rollback", "--reason", "drill", s.name)
	s.nothingLeft(2, s.name+"_a")
	s.write("overlap: 1s")
	s.ok("rotate", "--wait", s.name)
	l.stop(t)
	s.finished(3)
}

// TestCancellationOfWaits cancels what takes long by itself: the overlap, a
// restart command, and a server that has fallen silent.
func TestCancellationOfWaits(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{})
	s := newShop(t, pg, "overlap: 1h", "restart: [sleep, '20']")
	s.ok("adopt", s.name)
	r := s.start("before effect: cutover move", "rotate", s.name)
	r.goOn()
	time.Sleep(300 * time.Millisecond) // the command runs
	r.cancelled(syscall.SIGINT)
	s.write("overlap: 1h")
	if got := s.inService(); got != "v2" {
		t.Errorf("current leads to %q, want v2", got)
	}
	r = s.start("after record: cutover  done", "rotate", "--wait", s.name)
	r.goOn()
	time.Sleep(time.Second) // it waits for the overlap
	r.cancelled(syscall.SIGTERM)
	if p := s.status(); p.Current != 2 || p.Previous != 1 {
		t.Errorf("status is %+v, want version 2 current and 1 previous", p)
	}
	s.ok("rollback", "--reason", "drill", s.name)

	for _, phase := range []struct{ name, point string }{
		{"prepare", "before effect: prepare preflight"},
		{"prepare", "before effect: prepare arm"},
		{"validate", "before effect: validate probe"},
		{"cutover", "before effect: cutover lift bound"},
		{"cutover", "before effect: cutover expire old"},
	} {
		r := s.start(phase.point, phase.name, s.name)
		s.must(pg.Pause())
		r.goOn()
		time.Sleep(700 * time.Millisecond) // it waits for an answer
		r.cancelled(syscall.SIGINT)
		s.must(pg.Resume())
		if phase.point != "before effect: prepare preflight" && phase.point != "before effect: cutover lift bound" {
			s.ok(phase.name, s.name)
		}
	}
	s.write("overlap: 1s")
	s.ok("cleanup", "--force", "the drill is over", s.name)
	s.oneLogin()
}
