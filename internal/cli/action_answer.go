package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/actions"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
)

// actionOutputs are the outputs of the action. None is a value.
var actionOutputs = []string{"state", "exit", "for", "until", "due", "matrix", "hash", "credentials", "current", "pending", "previous", "previous-until", "entry", "versions"}

// A stand is where a credential is, in the output versions.
type stand struct {
	rotation.Position
	Fingerprints map[string]string `json:"fingerprints,omitempty"` // of the current version, keyed
}

// answer sets the outputs of a step and writes its summary. Both are worth less than
// what was done: if they cannot be written, that is a warning.
func (a *app) answer(ctx context.Context, code int, printed string) int {
	out := map[string]string{"exit": strconv.Itoa(code), "state": a.state(code)}
	for _, sum := range a.phases {
		if sum.Outcome == rotation.Waiting && out["for"] == "" {
			out["for"] = sum.For
			if !sum.Until.IsZero() {
				out["until"] = sum.Until.UTC().Format(time.RFC3339)
			}
		}
	}
	var due []string
	for _, p := range a.planned {
		due = append(due, namesIn(p)...)
		if len(a.planned) == 1 {
			out["hash"] = p.Hash
		}
	}
	if a.planned != nil {
		out["due"], out["matrix"] = list(due), matrix(a.planned)
	}
	stands := a.stands(context.WithoutCancel(ctx), out)
	for _, name := range actionOutputs {
		if value, ok := out[name]; ok {
			a.told("the outputs", a.step.Output(name, value))
		}
	}
	a.told("the summary", a.step.Summary(a.summary(code, stands, printed)))
	return code
}

func (a *app) told(what string, err error) {
	if err != nil {
		a.step.Warning("keyturn", fmt.Sprintf("%s of this step are not complete: %v", what, err), "")
	}
}

// state is the one word for what a run came to.
func (a *app) state(code int) string {
	for _, sum := range a.phases {
		if sum.Outcome == rotation.Waiting && (code == exitDone || code == exitRefused) {
			return "waiting"
		}
	}
	switch code {
	case exitDone:
		return "done"
	case exitCancelled:
		return "cancelled"
	}
	return "failed"
}

// matrix is what strategy.matrix takes, by fromJSON: a job for each batch. GitHub
// refuses an empty one, so whoever uses it asks first whether due is [].
func matrix(plans []rotation.Plan) string {
	type job struct {
		Credentials string         `json:"credentials"`
		Phase       rotation.Phase `json:"phase"`
	}
	jobs := []job{}
	for _, p := range plans {
		if names := namesIn(p); len(names) > 0 {
			jobs = append(jobs, job{strings.Join(names, " "), p.Credentials[0].Next})
		}
	}
	return jsonText(map[string]any{"include": jobs})
}

// namesIn are the credentials of a plan.
func namesIn(p rotation.Plan) []string {
	var names []string
	for _, c := range p.Credentials {
		names = append(names, c.Credential)
	}
	return names
}

// list is a JSON list for a condition.
func list(names []string) string {
	if names == nil {
		names = []string{}
	}
	return jsonText(names)
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("cli: " + err.Error()) // texts have a JSON form
	}
	return string(b)
}

// stands reads from the record where the credentials of this run are, and adds
// that to the outputs. Without a configuration or a record there is nothing to say.
func (a *app) stands(ctx context.Context, out map[string]string) []stand {
	names := a.touched()
	out["credentials"] = list(names)
	if a.cfg == nil || len(names) == 0 {
		return nil
	}
	ledger, err := rotation.Replay(a.seen)
	if !a.cfg.JournalGitHub {
		home, _, failed := a.open(ctx, a.cfg, true)
		if failed != nil || home == nil {
			return nil
		}
		ledger, err = rotation.ReadLedger(ctx, newRecords(home, journal.Entry{}))
	}
	if err != nil {
		return nil // the run has said it
	}
	out["entry"] = strconv.FormatInt(ledger.Last(), 10)
	var all []stand
	versions := map[string]stand{}
	for _, name := range names {
		c := ledger.Credential(name)
		s := stand{Position: rotation.PositionOf(c)}
		if v, ok := c.In(rotation.Current); ok {
			s.Fingerprints = v.Fingerprints
		}
		all = append(all, s)
		versions[name] = s
	}
	if b, err := json.Marshal(versions); err == nil {
		out["versions"] = string(b)
	}
	if len(all) == 1 {
		p := all[0].Position
		for output, n := range map[string]int{"current": p.Current, "pending": p.Pending, "previous": p.Previous} {
			if n != 0 {
				out[output] = strconv.Itoa(n)
			}
		}
		if !p.Until.IsZero() {
			out["previous-until"] = p.Until.UTC().Format(time.RFC3339)
		}
	}
	return all
}

// touched returns the credentials that this run was about, each once.
func (a *app) touched() []string {
	seen := map[string]bool{}
	for _, sum := range a.phases {
		for _, p := range sum.Credentials {
			seen[p.Name] = true
		}
	}
	for _, f := range a.failures {
		for _, name := range f.Credentials {
			seen[name] = true
		}
	}
	for _, v := range a.adopted {
		seen[v.Credential] = true
	}
	for _, e := range a.events {
		seen[e.Credential] = true
	}
	for _, p := range a.planned {
		for _, c := range p.Credentials {
			seen[c.Credential] = true
		}
	}
	delete(seen, "")
	return sortedKeys(seen)
}

// summary is a run in Markdown: what was done, and what was measured.
func (a *app) summary(code int, stands []stand, printed string) string {
	command := strings.TrimSpace(strings.Join(commandOf(a.Args), " "))
	var b strings.Builder
	fmt.Fprintf(&b, "### keyturn %s: %s", actions.Escape(command), a.state(code))
	if code != exitDone {
		fmt.Fprintf(&b, " (exit %d)", code)
	}
	b.WriteString("\n\n")
	for _, t := range a.complaints {
		if strings.Contains(t.text, "\n") {
			b.WriteString(actions.Code(t.text))
		} else {
			fmt.Fprintf(&b, "> %s\n\n", actions.Escape(t.text))
		}
		if t.hint != "" {
			fmt.Fprintf(&b, "> hint: %s\n\n", actions.Escape(t.hint))
		}
	}
	if len(a.phases)+len(a.events) == 0 {
		if strings.TrimSpace(printed) != "" {
			b.WriteString(actions.Code(printed))
		}
		return b.String()
	}
	b.WriteString(actions.Table([]string{"credential", "current", "pending", "previous", "in the retirement queue"}, positionRows(stands)))
	b.WriteString(actions.Table([]string{"phase", "outcome", "took", "waits for"}, a.phaseRows()))
	b.WriteString(actions.Table([]string{"service", "tasks", "replaced", "took", "slowest healthy after"}, a.serviceRows()))
	b.WriteString(actions.Table([]string{"credential", "version", "phase", "step", "came to", "took", ""}, a.stepRows()))
	for _, sum := range a.phases {
		for _, note := range sum.Notes {
			fmt.Fprintf(&b, "* %s\n", actions.Escape(note))
		}
	}
	return b.String()
}

// commandOf returns the words of a command line before its flags.
func commandOf(args []string) []string {
	for i, arg := range args {
		if strings.HasPrefix(arg, "-") {
			return args[:i]
		}
	}
	return args
}

func positionRows(stands []stand) [][]string {
	var rows [][]string
	for _, s := range stands {
		previous := numbered(s.Previous)
		if s.Previous != 0 && !s.Until.IsZero() {
			previous += " until " + clock(s.Until)
		}
		rows = append(rows, []string{s.Name, numbered(s.Current), numbered(s.Pending), previous, strconv.Itoa(s.Queue)})
	}
	return rows
}

func numbered(n int) string {
	if n == 0 {
		return "none"
	}
	return "v" + strconv.Itoa(n)
}

func (a *app) phaseRows() [][]string {
	var rows [][]string
	for _, sum := range a.phases {
		wait := ""
		if sum.Outcome == rotation.Waiting {
			wait = waitWords(sum)
		}
		rows = append(rows, []string{string(sum.Phase), string(sum.Outcome), seconds(sum.Millis), wait})
	}
	return rows
}

func (a *app) serviceRows() [][]string {
	var rows [][]string
	for _, sum := range a.phases {
		for _, svc := range sum.Services {
			slowest := ""
			if svc.SlowestHealth > 0 {
				slowest = seconds(svc.SlowestHealth)
			}
			rows = append(rows, []string{svc.Service, strconv.Itoa(svc.Tasks), strconv.Itoa(svc.Restarts), seconds(svc.Millis), slowest})
		}
	}
	return rows
}

func (a *app) stepRows() [][]string {
	var rows [][]string
	for _, e := range a.events {
		if e.Status == rotation.RecordStarted || e.Status == rotation.RecordUndoing || e.Step == "" {
			continue
		}
		rows = append(rows, []string{e.Credential, numbered(e.Version), string(e.Phase), stepWords(e), string(e.Status), seconds(e.Elapsed.Milliseconds()), e.Text})
	}
	return rows
}
