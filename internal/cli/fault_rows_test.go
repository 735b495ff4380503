package cli_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

// longRow leaves a row of docs/design/faults.md that takes more than half a minute, or a file
// system of its own, to make faults.
func longRow(t *testing.T) {
	t.Helper()
	if os.Getenv("KEYTURN_FAULTS") != "all" {
		t.Skip("it is long: make faults")
	}
}

// named names other servers in the configuration.
func (s *shop) named(was string, servers ...*testserver.Postgres) (now string) {
	s.t.Helper()
	b, err := os.ReadFile(s.config)
	s.must(err)
	var addresses []string
	for _, pg := range servers {
		addresses = append(addresses, pg.Addr())
	}
	now = strings.Join(addresses, ",")
	text := strings.ReplaceAll(string(b), "@"+was+"/", "@"+now+"/")
	if text == string(b) {
		s.t.Fatalf("the configuration does not name %s", was)
	}
	s.must(os.WriteFile(s.config, []byte(text), 0o600))
	return now
}

// standby starts a standby that the configuration names, too.
func (s *shop) standby(ctx context.Context) (standby *testserver.Postgres, named string) {
	s.t.Helper()
	standby, err := s.pg.StartStandby(ctx, testserver.PostgresOptions{})
	testserver.Require(s.t, err)
	s.t.Cleanup(func() {
		if err := standby.Remove(); err != nil {
			s.t.Errorf("removing the standby: %v", err)
		}
	})
	s.must(standby.WaitCaughtUp(ctx))
	return standby, s.named(s.pg.Addr(), s.pg, standby)
}

// TestFailover loses the primary in the middle of a phase (with KEYTURN_FAULTS=all of each),
// and a standby takes over. The run in hand cannot tell and undoes nothing; named in the
// configuration, the new primary is gone on with. No login at it fails all the while.
func TestFailover(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s := newShop(t, testserver.NewPostgres(t, testserver.PostgresOptions{}), "overlap: 1h")
	s.ok("adopt", s.name)
	current, all := 2, os.Getenv("KEYTURN_FAULTS") == "all"
	for _, st := range []struct {
		point  string
		args   []string
		sample bool
	}{
		{"before effect: prepare arm", []string{"prepare", s.name}, false},
		{"before effect: validate probe", []string{"validate", s.name}, false},
		{"before effect: cutover lift bound", []string{"cutover", s.name}, true},
		{"before effect: cleanup end", []string{"cleanup", "--force", "drill", s.name}, false},
	} {
		if !all && !st.sample {
			s.ok(st.args...)
			continue
		}
		standby, both := s.standby(ctx)
		l := s.startLoadAt(standby)
		r := s.start(st.point, st.args...)
		s.must(s.pg.Crash(ctx))
		r.goOn()
		if got := r.wait(); got.code != 4 || strings.Contains(got.stderr, "rolled back") {
			t.Errorf("%s: exit %d, want 4 and nothing undone\n%s%s", st.point, got.code, got.stdout, got.stderr)
		}
		s.must(standby.Promote(ctx))
		s.pg = standby
		s.named(both, standby)
		s.ok(st.args...)
		l.stop(t)
	}
	if all {
		current++ // what was not armed at the end was drafted afresh under the next number
	}
	s.finished(current)
	s.ok("rotate", s.name)
	s.ok("cleanup", "--force", "drill", s.name)
	s.finished(current + 1)
}

// TestFailoverThatLost fails over to a standby that never heard of the new version: it is
// dead there, which is found before any service is moved.
func TestFailoverThatLost(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s := newShop(t, testserver.NewPostgres(t, testserver.PostgresOptions{}), "overlap: 1h")
	s.ok("adopt", s.name)
	standby, both := s.standby(ctx)
	s.named(both, s.pg)
	l := s.startLoadAt(standby)
	s.must(standby.CutOff(ctx))
	s.ok("prepare", s.name)
	s.must(s.pg.Crash(ctx))
	s.must(standby.Promote(ctx))
	s.named(s.pg.Addr(), standby)
	s.pg = standby
	s.fails(1, []string{"rolled back", "version 2 is dead"}, "validate", s.name)
	if got := s.inService(); got != "initial" {
		t.Errorf("current leads to %q, want %q", got, "initial")
	}
	s.ok("rotate", s.name)
	s.ok("cleanup", "--force", "drill", s.name)
	l.stop(t)
	s.finished(3)
}

// TestJournalOnAFullDisk fills the journal's disk before a cutover, and in the middle of it:
// nothing is done that cannot be recorded, a working credential stays in service, and when
// there is room again the same command goes on. How many records the journal's last page
// still takes is chance: where it stops, too.
func TestJournalOnAFullDisk(t *testing.T) {
	longRow(t)
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	s := newShop(t, servers.postgres.Get(t), "overlap: 1h")
	disk := filepath.Dir(s.journal)
	s.must(os.MkdirAll(disk, 0o700))
	s.must(syscall.Mount("tmpfs", disk, "tmpfs", 0, "mode=700,size=256k"))
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(disk, "ballast")
	fill := func() {
		f, err := os.Create(ballast)
		s.must(err)
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 512))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("filling the disk: %v", err)
		}
	}
	s.ok("adopt", s.name)
	l := s.startLoad()
	s.ok("prepare", s.name)
	s.ok("validate", s.name)
	fill()
	r := s.run("cutover", s.name)
	if r.code == 0 || !strings.Contains(r.stderr, "no space left on device") {
		t.Errorf("cutover on a full disk: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	first := s.inService()
	s.must(os.Remove(ballast))
	if first == "initial" {
		held := s.start("before effect: cutover expire old", "cutover", s.name)
		fill()
		held.goOn()
		if r := held.wait(); r.code != 0 && (r.code != 4 || !strings.Contains(r.stderr, "no space left on device")) {
			t.Errorf("a disk that is full after the move: exit %d, want 4\n%s%s", r.code, r.stdout, r.stderr)
		}
		if got := s.inService(); got != "v2" {
			t.Errorf("after the move current leads to %q, want %q", got, "v2")
		}
		s.must(os.Remove(ballast))
	}
	s.ok("cutover", s.name)
	s.ok("cleanup", "--force", "drill", s.name)
	l.stop(t)
	s.finished(2)
}

// TestEngineRestarts loses the engine, with every task, before a phase's effects, and
// while a cutover moves the services. What could not be asked is not known, and when the
// engine is back the same command goes on; no login is refused.
func TestEngineRestarts(t *testing.T) {
	longRow(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	engine := testserver.NewEngine(t, testserver.EngineOptions{})
	check(t, buildImages(engine))
	k := newStackOn(t, engine, servers.postgres.Get(t), []string{"overlap: 1h"})
	k.ok("adopt", k.name)
	for _, st := range []struct {
		point string
		args  []string
	}{
		{"before effect: prepare put", []string{"prepare", k.name}},
		{"before effect: validate probe", []string{"validate", k.name}},
		{"before effect: cutover move", []string{"cutover", k.name}},
		{"after effect: cutover move", []string{"cutover", k.name}},
		{"before effect: cleanup remove", []string{"cleanup", "--force", "drill", k.name}},
	} {
		r := k.start(st.point, st.args...)
		before := k.tasks()
		engine.Crash()
		r.goOn()
		if got := r.wait(); got.code != 4 || strings.Contains(got.stderr, "rolled back") {
			t.Errorf("%s: exit %d, want 4 and nothing undone\n%s%s", st.point, got.code, got.stdout, got.stderr)
		}
		k.must(engine.Restart(ctx))
		for slices.ContainsFunc(k.tasks(), func(id string) bool { return slices.Contains(before, id) }) {
			time.Sleep(100 * time.Millisecond) // the engine still takes the tasks of before for running
		}
		k.settled()
		if st.point != "before effect: cutover move" { // the next row meets the same phase
			k.ok(st.args...)
		}
	}
	k.done(k.status().Current)
	k.ok("rotate", k.name)
	k.ok("cleanup", "--force", "drill", k.name)
	k.noneRefused()
}

// threeManagers makes a stack on a Swarm of three managers, which is reached by one that
// does not lead.
func threeManagers(t *testing.T) (k *stack, leader *testserver.Engine) {
	t.Helper()
	managers := testserver.NewManagers(t, 3)
	for _, e := range managers {
		check(t, buildImages(e))
	}
	asked := managers[2]
	k = newStackOn(t, asked, servers.postgres.Get(t), []string{"overlap: 1h"}, replicas(3))
	leader, err := testserver.Leader(t.Context(), asked, managers)
	check(t, err)
	if leader == asked {
		t.Fatal("the manager that is asked leads the Swarm")
	}
	k.ok("adopt", k.name)
	return k, leader
}

// eventually runs keyturn again until it succeeds, as somebody does whose Swarm is on its
// way back. No run may take anything back.
func (k *stack) eventually(args ...string) {
	k.t.Helper()
	var r result
	began := time.Now()
	for tries := 1; time.Since(began) < 4*time.Minute; tries++ {
		if r = k.run(args...); r.code == 0 {
			k.t.Logf("keyturn %s: done after %d tries and %v", args[0], tries, time.Since(began).Round(time.Second))
			return
		}
		k.t.Logf("%d after %v: %s%s", r.code, time.Since(began).Round(time.Second), r.stdout, r.stderr)
		time.Sleep(2 * time.Second)
		if strings.Contains(r.stderr, "rolled back") {
			break
		}
	}
	k.t.Fatalf("keyturn %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
}

// nodeOf returns the id of a node that is down, by its manager's address.
func (k *stack) nodeOf(e *testserver.Engine) string {
	k.t.Helper()
	nodes, err := k.client.NodeList(context.Background(), swarm.NodeListOptions{})
	k.must(err)
	for _, n := range nodes {
		if n.ManagerStatus != nil && n.ManagerStatus.Addr == e.ManagerAddr() {
			return n.ID
		}
	}
	k.t.Fatalf("no node has the address %s", e.ManagerAddr())
	return ""
}

// removeNode removes a manager that is lost for good.
func (k *stack) removeNode(id string) {
	k.t.Helper()
	n, _, err := k.client.NodeInspectWithRaw(context.Background(), id)
	k.must(err)
	n.Spec.Role = swarm.NodeRoleWorker
	k.must(k.client.NodeUpdate(context.Background(), id, n.Version, n.Spec))
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) { // it is demoted in its time
		err = k.client.NodeRemove(context.Background(), id, swarm.NodeRemoveOptions{Force: true})
		if err == nil || time.Now().After(end) {
			k.must(err)
			return
		}
	}
}

// noneRefused checks that the servers refused no login.
func (k *stack) noneRefused() {
	k.t.Helper()
	if got := k.totals(); got.ByCode["28P01"]+got.ByCode["28000"] > 0 || got.OK == 0 {
		k.t.Errorf("%d logins worked, and failed %v; none may be refused", got.OK, got.ByCode)
	}
}

// TestLeaderIsKilled kills the leader of three managers, with its tasks, while a cutover
// moves a service on all three: another one leads, and the cutover comes to its end, at once
// or run again.
func TestLeaderIsKilled(t *testing.T) {
	longRow(t)
	t.Parallel()
	for _, point := range []string{"before effect: cutover move", "after effect: cutover move"} {
		t.Run(point, func(t *testing.T) {
			k, leader := threeManagers(t)
			k.ok("prepare", k.name)
			k.ok("validate", k.name)
			r := k.start(point, "cutover", k.name)
			leader.Crash()
			r.goOn()
			if got := r.wait(); got.code != 0 && got.code != 4 || strings.Contains(got.stderr, "rolled back") {
				t.Errorf("cutover without its leader: exit %d\n%s%s", got.code, got.stdout, got.stderr)
			}
			k.eventually("cutover", k.name)
			gone, waits := k.nodeOf(leader), 0
			for version := 2; version <= 3; version++ {
				if version == 3 {
					k.eventually("rotate", k.name)
				}
				if r := k.run("cleanup", "--force", "drill", k.name); r.code == 3 {
					if !strings.Contains(r.stderr, "which is down") || !strings.Contains(r.stderr, "docker node rm --force "+gone) {
						t.Errorf("cleanup with tasks on a dead node:\n%s%s", r.stdout, r.stderr)
					}
					waits++
					k.removeNode(gone) // as the hint says
				}
				k.eventually("cleanup", "--force", "drill", k.name)
				k.done(version)
			}
			if waits != 1 {
				t.Errorf("cleanup waited %d times for tasks of the dead node, want once", waits)
			}
			k.noneRefused()
		})
	}
}

// TestNodeIsCutOff cuts one node of three off while its tasks go on with what they have: the
// old version is not ended before they are gone or hear of the new one, and no login is
// refused.
func TestNodeIsCutOff(t *testing.T) {
	longRow(t)
	t.Parallel()
	k, leader := threeManagers(t)
	k.ok("prepare", k.name)
	k.ok("validate", k.name)
	r := k.start("before effect: cutover move", "cutover", k.name)
	k.must(leader.CutOff())
	r.goOn()
	if got := r.wait(); got.code != 0 && got.code != 4 || strings.Contains(got.stderr, "rolled back") {
		t.Errorf("cutover without a node: exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	k.eventually("cutover", k.name)
	if p := k.status(); p.Current != 2 || p.Previous != 1 {
		t.Errorf("status is %+v", p)
	}
	// The tasks that nobody hears from log in on: the old version lives for them.
	if r := k.run("cleanup", "--force", "drill", k.name); r.code != 3 || !strings.Contains(r.stderr, "which is down") {
		t.Errorf("cleanup with a node cut off: exit %d, want 3\n%s%s", r.code, r.stdout, r.stderr)
	}
	k.must(leader.Reconnect())
	k.eventually("cleanup", "--force", "drill", k.name)
	k.done(2)
	k.noneRefused()
}
