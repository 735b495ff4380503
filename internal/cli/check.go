package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/rotation"
)

// triedFor bounds how long one credential is tried.
const triedFor = 2 * time.Minute

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check [CREDENTIAL…]", Short: "Try whether everything that was promised is true now; changes nothing",
		RunE: func(cmd *cobra.Command, names []string) error { return a.check(cmd.Context(), names) },
	}
}

// check believes nothing: it tries what is in service, looks whether what was ended is
// refused, and holds what services mount against what is declared. Exit 6 if anything
// is otherwise.
func (a *app) check(ctx context.Context, names []string) error {
	e, err := a.examine(ctx, names)
	if err != nil {
		return err
	}
	if err := e.each(ctx, names, e.promised); err != nil {
		return err
	}
	e.raiseProblems("check")
	e.measureFound()
	err = e.conclude(false)
	a.deliver(nil)
	return err
}

// raiseProblems raises what was found to be otherwise than promised.
func (e *examination) raiseProblems(key string) {
	var lines []string
	for _, f := range e.found {
		if f.Level == rotation.Problem {
			lines = append(lines, strings.TrimSpace(f.Credential+" "+f.Check)+": "+f.Text)
		}
	}
	if len(lines) > 0 {
		e.raise(notify.Degradation, key, counted(len(lines), "promise")+" not kept", strings.Join(lines, "\n"))
	}
}

// promised checks one credential.
func (e *examination) promised(ctx context.Context, w *wiring, c config.Credential) {
	now := e.ledger.Credential(c.Name)
	e.check(ctx, c.Name, "record", func(context.Context) ([]rotation.Remark, error) { return e.record(c, now), nil })
	p := w.procs[c.Name]
	if p == nil || now.Burnt == 0 {
		return
	}
	if x, ok := p.Backend.(rotation.Examiner); ok {
		e.check(ctx, c.Name, c.Backend, x.Examine)
	}
	tried, cancel := context.WithTimeout(ctx, triedFor)
	defer cancel()
	for _, r := range p.Check(tried, now, e.proven[c.Name]) {
		e.found = append(e.found, finding{c.Name, "versions", r})
	}
	if w.swarm == nil || apart(p) {
		return
	}
	e.check(ctx, c.Name, "services", func(ctx context.Context) ([]rotation.Remark, error) { return e.services(ctx, w, c, now) })
	e.check(ctx, c.Name, "mounts", func(ctx context.Context) ([]rotation.Remark, error) { return w.swarm.AsDeclared(ctx, now) })
	e.check(ctx, c.Name, "in the clear", func(ctx context.Context) ([]rotation.Remark, error) { return e.inTheClear(ctx, w, p, now) })
	e.check(ctx, c.Name, "leftovers", func(ctx context.Context) ([]rotation.Remark, error) { return e.leftovers(ctx, w, now) })
	e.check(ctx, c.Name, "stack file", func(context.Context) ([]rotation.Remark, error) { return stackRemarks(c, now), nil })
}

// inTheClear looks for values of the credential, also of old ones, where whoever may talk
// to the engine can read them.
func (e *examination) inTheClear(ctx context.Context, w *wiring, p *rotation.Standard, now rotation.Credential) ([]rotation.Remark, error) {
	var err error
	if p.Prints, err = e.fingerprints(ctx, e.cfg, e.home, false); err != nil { // who looks has none
		return nil, err
	}
	texts, err := w.swarm.Texts(ctx)
	if err != nil {
		return nil, err
	}
	var out []rotation.Remark
	for _, t := range texts {
		if version, field, found := p.Holds(now, t.Text); found {
			out = append(out, rotation.Remark{Level: rotation.Problem, Hint: "take it out there, and replace the value: keyturn rotate " + now.Name,
				Text: fmt.Sprintf("%s holds the field %s of version %d in the clear", t.Where, field, version)})
		}
	}
	if len(out) == 0 {
		out = append(out, rotation.Remark{Level: rotation.Fine, Text: "no value of it stands in a variable, an argument, a label or a config"})
	}
	return out, nil
}

// provenIn returns, by credential, the versions whose proof of death is on the record.
func provenIn(records []rotation.Record) map[string][]int {
	out := map[string][]int{}
	for _, r := range records {
		var effect rotation.Effect
		if r.Status != rotation.RecordDone && r.Status != rotation.RecordObserved || json.Unmarshal(r.Evidence["effect"], &effect) != nil || effect != rotation.Prove {
			continue
		}
		out[r.Credential] = append(out[r.Credential], r.Version)
	}
	return out
}
