package cli

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
)

// checkLimit bounds one check: what does not answer hides nothing else.
const checkLimit = 20 * time.Second

func (a *app) doctorCommand() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use: "doctor [CREDENTIAL…]", Short: "Say what is in the way of rotations and how to mend it; changes nothing",
		RunE: func(cmd *cobra.Command, names []string) error { return a.doctor(cmd.Context(), names, strict) },
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "exit 6 for warnings, too")
	return cmd
}

// A finding is a remark, and what it is about.
type finding struct {
	Credential string `json:"credential,omitempty"`
	Check      string `json:"check"`
	rotation.Remark
}

// An examination is one run of doctor or check.
type examination struct {
	*app
	cfg    *config.Config
	home   home // nil: none yet, or none that can be read
	ledger *rotation.Ledger
	stored map[string]map[string]int // credential → name of a secret → version
	proven map[string][]int          // credential → versions whose proof of death is on the record
	found  []finding
	seen   *rotation.Credential // what would be adopted, of one that was not
}

func (a *app) doctor(ctx context.Context, names []string, strict bool) error {
	e, err := a.examine(ctx, names)
	if err != nil {
		return err
	}
	if usesGitHub(e.cfg) {
		e.check(ctx, "", "github", e.github)
	}
	if len(e.cfg.Reminders) > 0 {
		e.check(ctx, "", "reminders", e.aged)
	}
	if err := e.each(ctx, names, e.credential); err != nil {
		return err
	}
	return e.conclude(strict)
}

// examine begins with the journal, which everything else is held against.
func (a *app) examine(ctx context.Context, names []string) (*examination, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !slices.Contains(namesOf(cfg), name) {
			return nil, usagef(credentials(cfg), "no credential is called %q", name)
		}
	}
	a.log = slog.New(slog.DiscardHandler) // what is warned of is a finding
	e := &examination{app: a, cfg: cfg, ledger: rotation.NewLedger()}
	e.check(ctx, "", "journal", e.journal)
	return e, nil
}

// each examines the target, and the credentials of these names, or all.
func (e *examination) each(ctx context.Context, names []string, look func(context.Context, *wiring, config.Credential)) error {
	targeted := false
	for _, c := range e.cfg.Credentials {
		if len(names) > 0 && !slices.Contains(names, c.Name) {
			continue
		}
		w := e.wireOne(ctx, c)
		if w == nil {
			continue
		}
		if x, ok := w.target(c.Name).(rotation.Examiner); ok && !targeted {
			e.check(ctx, "", "swarm", x.Examine)
			targeted = true
		}
		look(ctx, w, c)
		w.close()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// wireOne makes what is needed for one credential: the others' faults are theirs.
// Without its backend the Swarm is examined all the same.
func (e *examination) wireOne(ctx context.Context, c config.Credential) *wiring {
	one := *e.cfg
	one.Credentials = []config.Credential{c}
	w, err := e.wired(ctx, &one, e.home, "", phaseFlags{}, true)
	if err == nil {
		return w
	}
	e.fail(c.Name, "configuration", err)
	w = &wiring{app: e.app, cfg: &one, engine: &rotation.Engine{}}
	if one.Swarm == nil || e.wireSwarm(w) != nil {
		return nil
	}
	return w
}

// target returns where a credential is read.
func (w *wiring) target(name string) rotation.Target {
	p := w.procs[name]
	if p == nil || w.swarm != nil && !apart(p) {
		return w.swarm
	}
	return p.Target
}

// apart reports whether a credential has a place of its own, beside the target.
func apart(p *rotation.Standard) bool {
	if p == nil {
		return false // its part of the configuration cannot be used
	}
	_, own := p.Backend.(rotation.Placed)
	return own
}

// check runs a check in its own time.
func (e *examination) check(ctx context.Context, credential, name string, run func(context.Context) ([]rotation.Remark, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	remarks, err := run(ctx)
	for _, r := range remarks {
		e.found = append(e.found, finding{credential, name, r})
	}
	e.fail(credential, name, err)
	return err == nil
}

func (e *examination) fail(credential, name string, err error) {
	if err != nil {
		e.found = append(e.found, finding{credential, name, rotation.Remark{Level: rotation.Problem, Text: err.Error(), Hint: hintFor(err)}})
	}
}

// credential examines one credential: its backend, its services, how they reach
// the backend, what they are deployed from, and what is on record.
func (e *examination) credential(ctx context.Context, w *wiring, c config.Credential) {
	now := e.ledger.Credential(c.Name)
	e.seen = nil
	e.check(ctx, c.Name, "record", func(context.Context) ([]rotation.Remark, error) { return e.record(c, now), nil })
	if p := w.procs[c.Name]; p != nil {
		e.backend(ctx, p.Backend, c, now)
	}
	e.check(ctx, c.Name, "services", func(ctx context.Context) ([]rotation.Remark, error) { return e.services(ctx, w, c, now) })
	e.check(ctx, c.Name, "services", warnings(w.target(c.Name), c.Name))
	if w.swarm == nil || apart(w.procs[c.Name]) {
		return
	}
	if p := w.procs[c.Name]; p != nil {
		e.check(ctx, c.Name, "endpoints", func(ctx context.Context) ([]rotation.Remark, error) { return endpoints(ctx, w, c) })
	}
	e.check(ctx, c.Name, "leftovers", func(ctx context.Context) ([]rotation.Remark, error) { return e.leftovers(ctx, w, now) })
	e.check(ctx, c.Name, "stack file", func(context.Context) ([]rotation.Remark, error) {
		if e.seen != nil {
			now = *e.seen
		}
		return stackRemarks(c, now), nil
	})
}

// backend examines a backend. One that cannot be reached is said once.
func (e *examination) backend(ctx context.Context, b rotation.Backend, c config.Credential, now rotation.Credential) {
	reached := true
	if x, ok := b.(rotation.Examiner); ok {
		reached = e.check(ctx, c.Name, c.Backend, x.Examine)
	}
	if x, ok := b.(rotation.Preflighter); ok && reached {
		e.check(ctx, c.Name, c.Backend, preflight(x, now, "the administrator may do what is needed"))
	}
	e.check(ctx, c.Name, c.Backend, warnings(b, c.Name))
}

// preflight is a check by what a phase would check first.
func preflight(x rotation.Preflighter, c rotation.Credential, fine string) func(context.Context) ([]rotation.Remark, error) {
	return func(ctx context.Context) ([]rotation.Remark, error) {
		if err := x.Preflight(ctx, c); err != nil {
			return nil, err
		}
		return []rotation.Remark{{Level: rotation.Fine, Text: fine}}, nil
	}
}

func warnings(part any, credential string) func(context.Context) ([]rotation.Remark, error) {
	return func(ctx context.Context) ([]rotation.Remark, error) {
		x, ok := part.(rotation.Warner)
		if !ok {
			return nil, nil
		}
		texts, _ := x.Warnings(ctx, credential) // what is wrong with the services their own check says
		var out []rotation.Remark
		for _, text := range texts {
			out = append(out, rotation.Remark{Level: rotation.Warning, Text: text})
		}
		return out, nil
	}
}

// conclude prints what was found and sets the exit code.
func (e *examination) conclude(strict bool) error {
	problems, warned := 0, 0
	var once []finding
	for _, f := range e.found {
		if slices.Contains(once, f) {
			continue
		}
		once = append(once, f)
		switch f.Level {
		case rotation.Problem:
			problems++
		case rotation.Warning:
			warned++
		}
	}
	code := exitDone
	if problems > 0 || strict && warned > 0 {
		code = exitFound
	}
	if e.output == "json" {
		e.json(map[string]any{"findings": once, "problems": problems, "warnings": warned, "exit": code})
	} else {
		e.print(once)
		e.printf("%s, %s\n", counted(problems, "problem"), counted(warned, "warning"))
	}
	if code == exitDone {
		return nil
	}
	return exitStatus(code)
}

// print prints a line for each finding, and one with what mends it.
func (e *examination) print(found []finding) {
	width := 0
	about := func(f finding) string { return strings.TrimSpace(f.Credential + " " + f.Check) }
	for _, f := range found {
		width = max(width, len(about(f)))
	}
	for _, f := range found {
		indent := strings.Repeat(" ", 9+width+2)
		e.printf("%-8s %-*s  %s\n", f.Level, width, about(f), strings.ReplaceAll(f.Text, "\n", "\n"+indent))
		if f.Hint != "" {
			e.printf("%shint: %s\n", indent, f.Hint)
		}
	}
}

func counted(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
