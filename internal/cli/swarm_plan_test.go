package cli_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// What differs from run to run in a plan: when the old version ends, the hash,
// and the columns, which are as wide as the stack's name.
var (
	planEnds   = regexp.MustCompile(`ends \w{3} [0-9-]{10} [0-9:]{5} UTC`)
	planHash   = regexp.MustCompile(`plan [0-9a-f]{64}`)
	planColumn = regexp.MustCompile(`([^ \n]) {2,}`)
)

const planned = `NAME 1 → 2 | login NAME → NAME_a | overlap 1s, the old one ends THEN
  prepare | + secret NAME_db_password_v2 · arm NAME_a | restarts nothing
  cutover | NAME_app 2 tasks, start-first, one at a time, about 7s | one rolling update
  cleanup | end login NAME, its sessions · remove NAME_db_password | an empty update per service, restarts nothing
  the application must read POSTGRES_PASSWORD_FILE at start
  warning: service "NAME_app" has failure_action: rollback; during a move it is pause, and set back at the end
  warning: no probe is set: versions are tried at the administrator's hosts (HOST), which may not be the way that services take; name that way under probe, through the pooler if there is one
  plan HASH
`

// TestSwarmPlan says what a rotation of a stack will do, and writes nothing: no
// object of the Swarm is made, changed or removed, not even for a moment, and
// no record.
func TestSwarmPlan(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), nil)
	k.ok("adopt", k.name)
	k.steady()
	journal, err := os.ReadFile(k.journal)
	k.must(err)
	service, objects, before := k.inspect(), k.objects(), k.tasks()

	changes, errs := k.client.Events(t.Context(), events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "service"), filters.Arg("type", "secret"), filters.Arg("type", "config"))})
	if got := k.plainPlan(); got != planned {
		t.Errorf("the plan is\n%s\nwant\n%s", got, planned)
	}
	edit("monitor: 1s,", "monitor: 1s, order: stop-first,")(k)
	if got, want := k.plainPlan(), `warning: service "NAME_app" is moved stop-first: each of its 2 tasks is gone for a moment`; !strings.Contains(got, want) {
		t.Errorf("the plan of stop-first lacks %q:\n%s", want, got)
	}
	for quiet := false; !quiet; {
		select {
		case m := <-changes:
			if strings.Contains(m.Actor.Attributes["name"], k.name) || strings.Contains(m.Actor.Attributes["name"], "keyturn.lock."+k.name) {
				t.Errorf("plan made a change: %s %s %v", m.Type, m.Action, m.Actor.Attributes)
			}
		case err := <-errs:
			t.Fatal(err)
		default:
			quiet = true
		}
	}
	k.same("a plan", before)
	if now := k.inspect(); now.Version != service.Version || !slices.Equal(k.objects(), objects) {
		t.Errorf("a plan changed the service or an object: %q became %q", objects, k.objects())
	}
	if now, err := os.ReadFile(k.journal); err != nil || string(now) != string(journal) {
		t.Errorf("a plan wrote into the journal: %v\n%s", err, strings.TrimPrefix(string(now), string(journal)))
	}
}

// plainPlan is what plan says, without what differs from run to run.
func (k *stack) plainPlan() string {
	k.t.Helper()
	out := strings.ReplaceAll(strings.ReplaceAll(k.ok("plan", k.name), k.name, "NAME"), k.pg.Addr(), "HOST")
	out = planHash.ReplaceAllString(planEnds.ReplaceAllString(out, "ends THEN"), "plan HASH")
	return strings.ReplaceAll(planColumn.ReplaceAllString(out, "$1 | "), " | \n", " |\n")
}
