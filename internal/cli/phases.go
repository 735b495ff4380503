package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/rotation"
)

// phaseFlags are what the commands of the phases can be told.
type phaseFlags struct {
	due       bool
	wait      bool
	takeOver  bool
	emergency bool
	dryRun    bool
	force     string
	reason    string
	plan      string
}

func (a *app) phaseCommands() []*cobra.Command {
	phases := []struct {
		phase rotation.Phase
		short string
	}{
		{rotation.Prepare, "Make the next version: stored, accepted, not used; restarts nothing"},
		{rotation.Validate, "Try the next version from where the services are"},
		{rotation.Cutover, "Move the services to the next version"},
		{rotation.Cleanup, "End the previous version, prove it dead, remove it"},
	}
	var cmds []*cobra.Command
	for _, p := range phases {
		cmds = append(cmds, a.phaseCommand(p.phase, p.short))
	}
	return append(cmds, a.rotateCommand(), a.rollbackCommand())
}

func (a *app) phaseCommand(phase rotation.Phase, short string) *cobra.Command {
	var f phaseFlags
	cmd := &cobra.Command{
		Use: string(phase) + " CREDENTIAL…", Short: short,
		RunE: func(cmd *cobra.Command, names []string) error {
			if cmd.Flags().Changed("force") && blank(f.force) {
				return usagef("say why: it stands in the record", "--force needs a reason")
			}
			if f.dryRun {
				return a.plan(cmd.Context(), names, f, phase)
			}
			return a.runPhases(cmd.Context(), names, f, phase)
		},
	}
	a.commonFlags(cmd, &f)
	cmd.Flags().BoolVar(&f.due, "due", false, "every credential whose turn for it has come")
	switch phase {
	case rotation.Prepare:
		emergencyFlag(cmd, &f)
	case rotation.Cutover:
		cmd.Flags().StringVar(&f.plan, "plan", "", "refuse unless the plan still has this `hash`")
	case rotation.Cleanup:
		cmd.Flags().StringVar(&f.force, "force", "", "do not wait for the overlap; the `reason` is recorded")
	}
	return cmd
}

func (a *app) commonFlags(cmd *cobra.Command, f *phaseFlags) {
	takeOverFlag(cmd, &f.takeOver)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print the plan and change nothing")
}

func takeOverFlag(cmd *cobra.Command, takeOver *bool) {
	cmd.Flags().BoolVar(takeOver, "take-over", false, "take the lease although its holder may be alive")
}

func emergencyFlag(cmd *cobra.Command, f *phaseFlags) {
	cmd.Flags().BoolVar(&f.emergency, "emergency", false, "do not wait for the current version's minimum age, and let it take the login that is kept for emergencies")
}

func (a *app) rotateCommand() *cobra.Command {
	var f phaseFlags
	cmd := &cobra.Command{
		Use: "rotate CREDENTIAL…", Short: "Prepare, validate and cut over; --wait goes on to cleanup",
		RunE: func(cmd *cobra.Command, names []string) error {
			if f.dryRun {
				return a.plan(cmd.Context(), names, f, anyPhase)
			}
			return a.rotate(cmd.Context(), names, f)
		},
	}
	a.commonFlags(cmd, &f)
	emergencyFlag(cmd, &f)
	cmd.Flags().BoolVar(&f.due, "due", false, "every credential that is due, and every rotation that is not at its end")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait for the overlap and clean up")
	return cmd
}

func (a *app) rollbackCommand() *cobra.Command {
	var f phaseFlags
	cmd := &cobra.Command{
		Use: "rollback --reason REASON CREDENTIAL…", Short: "Go back to the previous version, until cleanup",
		RunE: func(cmd *cobra.Command, names []string) error {
			if f.dryRun {
				return a.plan(cmd.Context(), names, f, rotation.Rollback)
			}
			if blank(f.reason) {
				return usagef("say why: it stands in the record", "rollback needs --reason")
			}
			return a.runPhases(cmd.Context(), names, f, rotation.Rollback)
		},
	}
	a.commonFlags(cmd, &f)
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it is recorded")
	return cmd
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

// runPhases runs one phase for every rotation that the named credentials belong to.
func (a *app) runPhases(ctx context.Context, names []string, f phaseFlags, phase rotation.Phase) error {
	w, err := a.wire(f, false)
	if err != nil {
		return err
	}
	defer w.close()
	groups, err := a.groups(ctx, w, names, f.due, phase)
	if err != nil {
		return err
	}
	if f.plan != "" {
		if err := w.samePlan(ctx, groups, f.plan); err != nil {
			return err
		}
	}
	if len(groups) == 0 {
		a.nothing("nothing is due for " + string(phase))
		return nil
	}
	return a.each(ctx, groups, func(group []string) error {
		if f.due {
			return a.dueTurn(ctx, w, group, f, phase)
		}
		sum, err := w.do(ctx, phase, group, f)
		return a.report(sum, err, f.due)
	})
}

// dueTurn runs a phase for a group whose turn it is. A rollback that was
// interrupted comes to its end first, and what is due then is begun.
func (a *app) dueTurn(ctx context.Context, w *wiring, group []string, f phaseFlags, phase rotation.Phase) error {
	next, err := w.next(ctx, group)
	if err != nil {
		return err
	}
	if next != rotation.Rollback {
		sum, err := w.do(ctx, phase, group, f)
		return a.report(sum, err, f.due)
	}
	if err := a.endRollback(ctx, w, group, f); err != nil {
		return err
	}
	groups, err := w.dueOf(ctx, group, phase)
	if err != nil {
		return err
	}
	return a.each(ctx, groups, func(group []string) error {
		sum, err := w.do(ctx, phase, group, f)
		return a.report(sum, err, f.due)
	})
}

func (a *app) endRollback(ctx context.Context, w *wiring, group []string, f phaseFlags) error {
	f.reason = "an interrupted rollback is brought to its end"
	sum, err := w.do(ctx, rotation.Rollback, group, f)
	return a.report(sum, err, f.due)
}

// report prints a summary and turns waiting into an exit: of a schedule
// (--due) nothing else is expected, for one who asked it is a refusal.
func (a *app) report(sum rotation.Summary, err error, due bool) error {
	if err != nil {
		for _, note := range sum.Notes {
			a.notef("%s", note)
		}
		return err
	}
	if sum.Outcome != rotation.Waiting || due {
		a.printSummary(sum)
		return nil
	}
	hint := sum.Hint
	if a.output != "json" {
		sum.Hint = "" // it stands below
	}
	a.printSummary(sum)
	a.say(fmt.Sprintf("%s waits for %s", sum.Phase, waitWords(sum)), hint)
	return exitStatus(exitRefused)
}

// samePlan refuses when the plan of a batch is not the one that was looked at.
func (w *wiring) samePlan(ctx context.Context, groups [][]string, hash string) error {
	if len(groups) != 1 {
		return usagef("name the credentials of that plan, and no others", "--plan is the plan of one batch, and %d batches are asked for", len(groups))
	}
	batch, err := w.standards(groups[0])
	if err != nil {
		return err
	}
	p, err := w.engine.Plan(ctx, anyPhase, batch...)
	if err != nil {
		return err
	}
	if p.Hash != hash {
		names := strings.Join(groups[0], " ")
		return rotation.Errorf(rotation.Refused, "look at it again: keyturn plan "+names,
			"the plan of %s is %s now, not %s", names, p.Hash, hash)
	}
	return nil
}
