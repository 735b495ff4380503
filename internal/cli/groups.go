package cli

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/rotation"
)

// anyPhase stands for a whole rotation where a phase is named.
const anyPhase rotation.Phase = ""

// ledger reads what is known of every credential.
func (w *wiring) ledger(ctx context.Context) (*rotation.Ledger, error) {
	return rotation.ReadLedger(ctx, w.journal)
}

// groups parts the named credentials into rotations: those of one open rotation
// together, with the rest of their batch; of the others, those that share a service.
func (a *app) groups(ctx context.Context, w *wiring, names []string, due bool, phase rotation.Phase) ([][]string, error) {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return nil, err
	}
	if due && len(names) > 0 || !due && len(names) == 0 {
		return nil, usagef(credentials(w.cfg), "name credentials, or --due for those that are")
	}
	if due {
		for _, name := range strays(w.cfg, ledger) {
			if c := ledger.Credential(name); c.Open != nil || len(c.Queue) > 0 {
				a.notef("the rotation of %q is not at its end, and %q is not in the configuration: nothing is done for it", name, name)
			}
		}
		w.raiseOverdue(ledger)
		return w.partition(ledger, w.due(ctx, ledger, phase)), nil
	}
	if err := w.known(names); err != nil {
		return nil, err
	}
	return w.partition(ledger, names), nil
}

// known refuses names that the configuration has not.
func (w *wiring) known(names []string) error {
	for _, name := range names {
		if _, ok := w.procs[name]; !ok {
			return usagef(credentials(w.cfg), "no credential is called %q", name)
		}
	}
	return nil
}

func (w *wiring) partition(ledger *rotation.Ledger, names []string) [][]string {
	var groups [][]string
	placed := map[string]bool{}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		if placed[name] {
			continue
		}
		group := w.together(ledger, name, names)
		for _, g := range group {
			placed[g] = true
		}
		groups = append(groups, group)
	}
	return w.inOrder(groups)
}

func namesOf(cfg *config.Config) []string {
	var out []string
	for _, c := range cfg.Credentials {
		out = append(out, c.Name)
	}
	return out
}

// credentials is the hint that lists them.
func credentials(cfg *config.Config) string {
	return "credentials: " + strings.Join(namesOf(cfg), ", ")
}

// strays returns the credentials that are on the record and not in the configuration.
func strays(cfg *config.Config, ledger *rotation.Ledger) []string {
	names := namesOf(cfg)
	return slices.DeleteFunc(ledger.Names(), func(name string) bool {
		return slices.Contains(names, name) || len(ledger.Credential(name).Versions) == 0
	})
}

// together returns the credentials that go through the phase with one.
func (w *wiring) together(ledger *rotation.Ledger, name string, named []string) []string {
	if open := ledger.Credential(name).Open; open != nil {
		return slices.DeleteFunc(slices.Clone(open.Batch), func(other string) bool {
			o := ledger.Credential(other).Open
			return o == nil || o.ID != open.ID
		})
	}
	// A first version goes alone: it has no way back.
	first := func(name string) bool { return ledger.Credential(name).Last().Number == 0 }
	group := []string{name}
	for grown := true; grown; {
		grown = false
		for _, other := range named {
			if slices.Contains(group, other) || ledger.Credential(other).Open != nil || first(other) != first(name) {
				continue
			}
			if slices.ContainsFunc(group, func(g string) bool { return w.share(g, other) }) {
				group, grown = append(group, other), true
			}
		}
	}
	sort.Strings(group)
	return group
}

// share reports whether two credentials are read by one service.
func (w *wiring) share(a, b string) bool {
	for _, p := range w.procs[a].Placements {
		for _, q := range w.procs[b].Placements {
			if p.Service == q.Service && p.Service != "" {
				return true
			}
		}
	}
	return false
}

// due returns the credentials whose turn for a phase has come; for a whole
// rotation, those that an open one has to be brought to its end, too.
func (w *wiring) due(ctx context.Context, ledger *rotation.Ledger, phase rotation.Phase) []string {
	var out []string
	for _, name := range namesOf(w.cfg) {
		if w.isDue(ctx, ledger.Credential(name), phase) {
			out = append(out, name)
		}
	}
	return out
}

func (w *wiring) isDue(ctx context.Context, c rotation.Credential, phase rotation.Phase) bool {
	next := rotation.NextPhase(c)
	old := !w.engine.Now().Before(dueAt(w.credential(c.Name), c))
	queued := len(c.Queue) > 0
	switch {
	case c.Open == nil:
		begins := phase == rotation.Prepare || phase == anyPhase
		return begins && (old || w.wanted(ctx, c)) || queued && (phase == rotation.Cleanup || phase == anyPhase)
	case next == rotation.Rollback: // whoever comes next brings it to its end
		return true
	case next == rotation.Cutover && c.Open.Phase != rotation.Cutover && phase == rotation.Cutover && !w.open(c.Name):
		return false // its window is not open: a schedule comes back
	}
	return phase == anyPhase || phase == next
}

// dueOf returns those of a group that are due for a phase now, parted into rotations.
func (w *wiring) dueOf(ctx context.Context, group []string, phase rotation.Phase) ([][]string, error) {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return nil, err
	}
	return w.partition(ledger, slices.DeleteFunc(slices.Clone(group), func(name string) bool {
		return w.procs[name] == nil || !w.isDue(ctx, ledger.Credential(name), phase)
	})), nil
}

// standards returns the procedures of a group. A rotation is gone on with as a
// whole, so all of its credentials must be in the configuration.
func (w *wiring) standards(group []string) ([]*rotation.Standard, error) {
	var procs []*rotation.Standard
	for _, name := range group {
		p, ok := w.procs[name]
		if !ok {
			return nil, usagef(fmt.Sprintf("put %q back into the configuration until its rotation is closed", name),
				"the rotation of %s also holds %q, which is not in the configuration", quoted(group, name), name)
		}
		procs = append(procs, p)
	}
	return procs, nil
}

// procedures returns the ways that a group goes.
func (w *wiring) procedures(group []string) ([]rotation.Procedure, error) {
	standards, err := w.standards(group)
	var procs []rotation.Procedure
	for _, p := range standards {
		procs = append(procs, rotation.ProcedureOf(p))
	}
	return procs, err
}

// quoted lists the names of a group but for one.
func quoted(group []string, but string) string {
	var out []string
	for _, name := range group {
		if name != but {
			out = append(out, fmt.Sprintf("%q", name))
		}
	}
	return strings.Join(out, ", ")
}

// next returns the phase that a group's rotation needs next.
func (w *wiring) next(ctx context.Context, group []string) (rotation.Phase, error) {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return "", err
	}
	return rotation.NextPhase(ledger.Credential(group[0])), nil
}

// do runs a phase for a group.
func (w *wiring) do(ctx context.Context, phase rotation.Phase, group []string, f phaseFlags) (rotation.Summary, error) {
	procs, err := w.procedures(group)
	if err != nil {
		return rotation.Summary{}, err
	}
	for _, mustWait := range []func(context.Context, rotation.Phase, []string, phaseFlags) (rotation.Summary, bool, error){w.closedWindow, w.behind} {
		if sum, waits, err := mustWait(ctx, phase, group, f); waits || err != nil {
			return sum, err
		}
	}
	if err := w.allowed(ctx, phase, group, f); err != nil {
		return rotation.Summary{Phase: phase}, err
	}
	approved, err := w.approved(ctx, phase, group, f)
	if err != nil && rotation.ClassOf(err) == rotation.Refused && len(w.policies(phase, group)) > 0 {
		w.app.raise(notify.Approval, string(phase)+"/"+strings.Join(group, ", "), string(phase)+" of "+strings.Join(group, ", ")+" waits for people", err.Error())
	}
	if err != nil {
		return rotation.Summary{Phase: phase}, err
	}
	sum, err := w.engine.Do(ctx, phase, procs, rotation.Options{Force: f.force, Reason: f.reason, TakeOver: f.takeOver, Plan: f.plan, Approval: approved})
	w.tell(ctx, phase, group, sum, err)
	w.raisePhase(phase, group, sum, err)
	return sum, err
}
