package cli_test

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
)

// values returns what the tasks of the stack have mounted, read as root through
// their own root folders.
func (k *stack) values() []string {
	k.t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	k.must(err)
	found := map[string]bool{}
	for _, file := range environments {
		env, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(env, []byte("POSTGRES_DB="+k.name+"\x00")) {
			continue // it has ended, or is another's
		}
		mounted, err := filepath.Glob(filepath.Join(filepath.Dir(file), "root/run/secrets/*"))
		k.must(err)
		for _, m := range mounted {
			if b, err := os.ReadFile(m); err == nil {
				found[strings.TrimSpace(string(b))] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// A witness notes the arguments of every process, until it is stopped.
type witness struct {
	stop  chan struct{}
	ended sync.WaitGroup
	seen  map[string]bool
}

func startWitness() *witness {
	w := &witness{stop: make(chan struct{}), seen: map[string]bool{}}
	w.ended.Go(func() {
		for {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, file := range files {
				b, _ := os.ReadFile(file) // those that have ended say nothing
				w.seen[string(b)] = true
			}
			select {
			case <-w.stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return w
}

// inspected returns everything that the engine tells of its objects, and what
// their containers have printed, by what it is.
func (k *stack) inspected() map[string]string {
	k.t.Helper()
	ctx := context.Background()
	out := map[string]string{}
	services, err := k.client.ServiceList(ctx, swarm.ServiceListOptions{})
	k.must(err)
	for _, o := range services {
		_, raw, err := k.client.ServiceInspectWithRaw(ctx, o.ID, swarm.ServiceInspectOptions{})
		if err == nil { // those of other tests come and go
			out["service "+o.Spec.Name] = string(raw)
		}
	}
	tasks, err := k.client.TaskList(ctx, swarm.TaskListOptions{})
	k.must(err)
	for _, o := range tasks {
		if _, raw, err := k.client.TaskInspectWithRaw(ctx, o.ID); err == nil {
			out["task "+o.ID] = string(raw)
		}
	}
	secrets, err := k.client.SecretList(ctx, swarm.SecretListOptions{})
	k.must(err)
	for _, o := range secrets {
		if _, raw, err := k.client.SecretInspectWithRaw(ctx, o.ID); err == nil {
			out["secret "+o.Spec.Name] = string(raw)
		}
	}
	configs, err := k.client.ConfigList(ctx, swarm.ConfigListOptions{})
	k.must(err)
	for _, o := range configs {
		if _, raw, err := k.client.ConfigInspectWithRaw(ctx, o.ID); err == nil {
			out["config "+o.Spec.Name] = string(raw) + string(o.Spec.Data)
		}
	}
	containers, err := k.client.ContainerList(ctx, container.ListOptions{All: true})
	k.must(err)
	for _, o := range containers {
		if _, raw, err := k.client.ContainerInspectWithRaw(ctx, o.ID, false); err == nil {
			out["container "+o.ID] = string(raw)
		}
	}
	for _, o := range tasks {
		if o.Status.ContainerStatus == nil {
			continue
		}
		if stdout, stderr, err := k.engine.TaskOutput(ctx, o); err == nil {
			out["output of task "+o.ID] = stdout + stderr
		}
	}
	log, err := k.engine.LogText()
	k.must(err)
	out["the engine's log"] = log
	return out
}

// TestSwarmCanary rotates twice, with everything that logs turned on, and looks
// for the values that were made wherever one could have got to.
func TestSwarmCanary(t *testing.T) {
	journey(t)
	t.Parallel()
	pg := testserver.NewPostgres(t, testserver.PostgresOptions{Settings: map[string]string{
		"log_statement": "all", "log_min_duration_statement": "0", "log_parameter_max_length": "-1"}})
	k := newStack(t, pg, []string{"mounts: dual", "overlap: 1h"})
	k.ok("adopt", k.name)
	w := startWitness()
	places, values := map[string]string{}, map[string]bool{}
	for _, args := range [][]string{
		{"plan"}, {"prepare"}, {"status"}, {"validate"}, {"cutover"}, {"cleanup", "--force", "the test has no hour"},
		{"rotate"}, {"rollback", "--reason", "to see more"},
	} {
		r := k.runWith(nil, append(append([]string{"--verbose"}, args...), k.name)...)
		if r.code != 0 {
			t.Fatalf("keyturn %v: exit %d\n%s%s", args, r.code, r.stdout, r.stderr)
		}
		places["output of "+strings.Join(args, " ")] = r.stdout + r.stderr
		for _, v := range k.values() {
			values[v] = true
		}
		for what, text := range k.inspected() {
			places[what+" after "+args[0]] = text
		}
	}
	close(w.stop)
	w.ended.Wait()
	for line := range w.seen {
		places["arguments of a process: "+line] = line
	}
	journal, err := os.ReadFile(k.journal)
	k.must(err)
	places["the journal"] = string(journal)
	places["PostgreSQL's log"], err = pg.LogText()
	k.must(err)
	if !strings.Contains(places["PostgreSQL's log"], "expire") {
		t.Error("PostgreSQL's log shows none of our calls: there is nothing to look at")
	}

	delete(values, firstPassword) // the test's own statements name it
	if len(values) < 2 {
		t.Fatalf("%d values were found where tasks read them, want 2 or more", len(values))
	}
	made := regexp.MustCompile(`^[A-Za-z0-9_-]{43,}$`)
	for value := range values {
		if !made.MatchString(value) {
			t.Errorf("a value of %d characters is none that we make", len(value))
		}
		for where, text := range places {
			if strings.Contains(text, value) {
				t.Errorf("a value stands in %s", strings.ReplaceAll(where, value, "…"))
			}
		}
	}
}
