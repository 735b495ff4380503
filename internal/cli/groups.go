package cli

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
)

// ledger reads what is known of every credential.
func (w *wiring) ledger(ctx context.Context) (*rotation.Ledger, error) {
	records, err := w.journal.Records(ctx)
	if err != nil {
		return nil, err
	}
	return rotation.Replay(records)
}

// groups parts the named credentials into rotations: those of one open rotation
// together, with the rest of their batch; of the others, those that share a service.
func (w *wiring) groups(ctx context.Context, names []string, due bool, phase rotation.Phase) ([][]string, error) {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return nil, err
	}
	if due && len(names) > 0 || !due && len(names) == 0 {
		return nil, usagef("credentials: "+strings.Join(w.names(), ", "), "name credentials, or --due for those that are")
	}
	if due {
		names = w.due(ledger, phase)
	}
	for _, name := range names {
		if _, ok := w.procs[name]; !ok {
			return nil, usagef("credentials: "+strings.Join(w.names(), ", "), "no credential is called %q", name)
		}
	}
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
	return groups, nil
}

func (w *wiring) names() []string { return namesOf(w.cfg) }

func namesOf(cfg *config.Config) []string {
	var out []string
	for _, c := range cfg.Credentials {
		out = append(out, c.Name)
	}
	return out
}

// together returns the credentials that go through the phase with one.
func (w *wiring) together(ledger *rotation.Ledger, name string, named []string) []string {
	if open := ledger.Credential(name).Open; open != nil {
		return slices.DeleteFunc(slices.Clone(open.Batch), func(other string) bool {
			o := ledger.Credential(other).Open
			return o == nil || o.ID != open.ID
		})
	}
	group := []string{name}
	for grown := true; grown; {
		grown = false
		for _, other := range named {
			if slices.Contains(group, other) || ledger.Credential(other).Open != nil {
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

// due returns the credentials whose turn for a phase has come.
func (w *wiring) due(ledger *rotation.Ledger, phase rotation.Phase) []string {
	var out []string
	for _, name := range w.names() {
		c := ledger.Credential(name)
		if phase != rotation.Prepare {
			if c.Open != nil {
				out = append(out, name)
			}
			continue
		}
		at, complete := c.At(rotation.Prepare)
		switch {
		case c.Open != nil:
			if at && !complete {
				out = append(out, name)
			}
		case c.LastSuccess.IsZero() || !w.engine.Now().Before(c.LastSuccess.Add(w.procs[name].Policy.Every)):
			out = append(out, name)
		}
	}
	return out
}

// phaseOf returns the phase that a group's rotation needs next.
func (w *wiring) phaseOf(ctx context.Context, group []string) (rotation.Phase, error) {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return "", err
	}
	return rotation.NextPhase(ledger.Credential(group[0])), nil
}

// do runs a phase for a group.
func (w *wiring) do(ctx context.Context, phase rotation.Phase, group []string, f phaseFlags) (rotation.Summary, error) {
	var procs []rotation.Procedure
	for _, name := range group {
		procs = append(procs, w.procs[name])
	}
	return w.engine.Do(ctx, phase, procs, rotation.Options{Force: f.force, Reason: f.reason, TakeOver: f.takeOver, Plan: f.plan})
}
