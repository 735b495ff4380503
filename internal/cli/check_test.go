package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// problems runs keyturn check, and returns what it finds, as "check: text".
func (s *shop) problems(args ...string) []string {
	s.t.Helper()
	r := s.run(append([]string{"check", "--output", "json"}, args...)...)
	var out struct {
		Findings []struct{ Credential, Check, Level, Text string }
		Problems int
	}
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil {
		s.t.Fatalf("check: exit %d: %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	var found []string
	for _, f := range out.Findings {
		if f.Level == "problem" {
			found = append(found, f.Check+": "+f.Text)
		}
	}
	if want := map[bool]int{true: 0, false: 6}[len(found) == 0]; r.code != want || out.Problems != len(found) {
		s.t.Errorf("check: exit %d with %d problems\n%s%s", r.code, len(found), r.stdout, r.stderr)
	}
	return found
}

// finds checks that keyturn check finds one thing, by its words, or with none nothing: soon,
// for a busy machine may be late.
func (s *shop) finds(when string, words ...string) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		found := s.problems()
		right := len(words) > 0 || len(found) == 0
		for _, w := range words {
			right = right && strings.Contains(strings.Join(found, "\n"), w)
		}
		if right {
			return
		}
		if time.Now().After(end) {
			s.t.Errorf("%s: check finds %q, want %q", when, found, words)
			return
		}
	}
}

// TestCheck makes every promise untrue, one after the other, and has it found.
func TestCheck(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "overlap: 24h")
	s.ok("adopt", s.name)
	s.finds("adopted")
	s.ok("rotate", s.name)
	s.finds("within the overlap")
	s.ok("cleanup", "--force", "a test", s.name)
	s.finds("rotated")

	current, old := s.name+"_a", s.name
	s.sql("postgres", fmt.Sprintf("alter role %s login password 'back again'", old))
	s.finds("an old login is valid again", "versions: version 1 was retired, and is")
	s.sql("postgres", fmt.Sprintf("alter role %s nologin password null valid until '-infinity'", old))
	s.finds("and ended again")
	s.sql("postgres", fmt.Sprintf("alter role %s nologin", current))
	s.finds("what is in service does not work", "versions: version 2, which is in service, is unfit")
	s.sql("postgres", fmt.Sprintf("alter role %s login", current))
	s.finds("and works again")

	s.ok("prepare", "--emergency", s.name)
	s.ok("validate", s.name)
	s.ok("cutover", s.name)
	s.sql("postgres", fmt.Sprintf("alter role %s set work_mem = '1MB'", current))
	s.finds("the halves are not alike", "may not do the same")
	s.sql("postgres", fmt.Sprintf("alter role %s reset work_mem", current))
	s.env = append(s.env, hooks.ClockAhead+"=50h")
	s.finds("the overlap and the grace are over", "still valid")
}

// TestCheckOnSwarm looks for values that stand in the clear, and for mounts that are not
// as declared.
func TestCheckOnSwarm(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 24h"})
	k.ok("adopt", k.name)
	k.finds("adopted")
	k.ok("rotate", k.name)
	k.ok("cleanup", "--force", "a test", k.name)
	k.finds("rotated")
	service := k.inspect()
	other := service.Spec
	other.Name, other.Labels = k.name+"_leaky", nil
	zero := uint64(0)
	other.Mode.Replicated = &swarm.ReplicatedService{Replicas: &zero}
	c := *other.TaskTemplate.ContainerSpec
	c.Secrets, c.Env = nil, []string{"DATABASE_URL=postgres://x:" + strings.Join(k.values(), " ") + "@db/orders"}
	other.TaskTemplate.ContainerSpec = &c
	leaky, err := k.engine.CreateService(t.Context(), other)
	k.must(err)
	k.finds("a value in a variable", "holds the field password of version 2 in the clear")
	k.must(k.engine.RemoveService(t.Context(), leaky))
	k.finds("and taken out")
	k.change(func(s *swarm.ServiceSpec) {
		for _, ref := range s.TaskTemplate.ContainerSpec.Secrets {
			ref.File.Name = "elsewhere"
		}
	})
	if found := strings.Join(k.problems(), "\n"); !strings.Contains(found, "mounts: ") && !strings.Contains(found, "services: ") {
		t.Errorf("a mount somewhere else: %s", found)
	}
	b, err := os.ReadFile(filepath.Clean(k.journal))
	k.must(err)
	k.clean(string(b))
}
