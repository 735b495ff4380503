package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

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
			if cmd.Flags().Changed("force") && f.force == "" {
				return usagef("say why: it stands in the record", "--force needs a reason")
			}
			if f.dryRun {
				return a.plan(cmd.Context(), names, f.due)
			}
			return a.runPhases(cmd.Context(), names, f, phase)
		},
	}
	a.commonFlags(cmd, &f)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print the plan and change nothing")
	switch phase {
	case rotation.Prepare:
		cmd.Flags().BoolVar(&f.emergency, "emergency", false, "do not wait for the current version's minimum age, and use the emergency login")
	case rotation.Cutover:
		cmd.Flags().StringVar(&f.plan, "plan", "", "refuse unless the plan still has this `hash`")
	case rotation.Cleanup:
		cmd.Flags().StringVar(&f.force, "force", "", "do not wait for the overlap; the `reason` is recorded")
	}
	return cmd
}

func (a *app) commonFlags(cmd *cobra.Command, f *phaseFlags) {
	cmd.Flags().BoolVar(&f.due, "due", false, "every credential that is due for it")
	cmd.Flags().BoolVar(&f.takeOver, "take-over", false, "take the lease from a run that is known to be dead")
}

func (a *app) rotateCommand() *cobra.Command {
	var f phaseFlags
	cmd := &cobra.Command{
		Use: "rotate CREDENTIAL…", Short: "Prepare, validate and cut over; --wait goes on to cleanup",
		RunE: func(cmd *cobra.Command, names []string) error { return a.rotate(cmd.Context(), names, f) },
	}
	a.commonFlags(cmd, &f)
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait for the overlap and clean up")
	cmd.Flags().BoolVar(&f.emergency, "emergency", false, "do not wait for the current version's minimum age, and use the emergency login")
	return cmd
}

func (a *app) rollbackCommand() *cobra.Command {
	var f phaseFlags
	cmd := &cobra.Command{
		Use: "rollback --reason REASON CREDENTIAL…", Short: "Go back to the previous version, until cleanup",
		RunE: func(cmd *cobra.Command, names []string) error {
			if f.reason == "" {
				return usagef("say why: it stands in the record", "rollback needs --reason")
			}
			return a.runPhases(cmd.Context(), names, f, rotation.Rollback)
		},
	}
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it is recorded")
	cmd.Flags().BoolVar(&f.takeOver, "take-over", false, "take the lease from a run that is known to be dead")
	return cmd
}

// runPhases runs one phase for every rotation that the named credentials belong to.
func (a *app) runPhases(ctx context.Context, names []string, f phaseFlags, phase rotation.Phase) error {
	w, err := a.wire(ctx, f)
	if err != nil {
		return err
	}
	defer w.close()
	groups, err := w.groups(ctx, names, f.due, phase)
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		return a.nothing("nothing is due for " + string(phase))
	}
	var errs []error
	for _, group := range groups {
		if f.plan != "" {
			if err := w.samePlan(ctx, group, f.plan); err != nil {
				return err
			}
		}
		sum, err := w.do(ctx, phase, group, f)
		errs = append(errs, a.report(sum, err, f.due))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// report prints a summary and turns waiting into an exit: of a schedule
// (--due) nothing else is expected, for one who asked it is a refusal.
func (a *app) report(sum rotation.Summary, err error, due bool) error {
	if err != nil {
		for _, note := range sum.Notes {
			fmt.Fprintf(a.Stderr, "note: %s\n", note)
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
	fmt.Fprintf(a.Stderr, "keyturn: %s waits for %s\n", sum.Phase, waitWords(sum))
	if hint != "" {
		fmt.Fprintf(a.Stderr, "hint: %s\n", hint)
	}
	return exitStatus(exitRefused)
}

// samePlan refuses when the plan is not the one that was looked at.
func (w *wiring) samePlan(ctx context.Context, group []string, hash string) error {
	for _, name := range group {
		p, err := w.engine.Plan(ctx, w.procs[name])
		if err != nil {
			return err
		}
		if p.Hash != hash {
			return rotation.Errorf(rotation.Refused, "look at it again: keyturn plan "+name,
				"the plan of %q is %s now, not %s", name, p.Hash, hash)
		}
	}
	return nil
}

// rotate takes every rotation to where it must wait.
func (a *app) rotate(ctx context.Context, names []string, f phaseFlags) error {
	w, err := a.wire(ctx, f)
	if err != nil {
		return err
	}
	defer w.close()
	groups, err := w.groups(ctx, names, f.due, rotation.Prepare)
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		return a.nothing("nothing is due")
	}
	var errs []error
	for _, group := range groups {
		errs = append(errs, a.rotateGroup(ctx, w, group, f))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (a *app) rotateGroup(ctx context.Context, w *wiring, group []string, f phaseFlags) error {
	at, err := w.phaseOf(ctx, group)
	if err != nil {
		return err
	}
	if at == rotation.Cleanup { // the rotation before is not closed yet
		if f.wait {
			if err := a.waitCleanup(ctx, w, group, f); err != nil {
				return err
			}
		} else if sum, err := w.do(ctx, rotation.Cleanup, group, f); err != nil || sum.Outcome == rotation.Waiting {
			return a.report(sum, err, f.due)
		}
	}
	for _, phase := range []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover} {
		sum, err := w.do(ctx, phase, group, f)
		if err := a.report(sum, err, f.due); err != nil {
			return err
		}
		if sum.Outcome == rotation.Waiting {
			return nil
		}
	}
	if f.wait {
		return a.waitCleanup(ctx, w, group, f)
	}
	return nil
}

// waitCleanup asks again until the previous version is dead.
func (a *app) waitCleanup(ctx context.Context, w *wiring, group []string, f phaseFlags) error {
	told := ""
	for {
		sum, err := w.do(ctx, rotation.Cleanup, group, f)
		if err != nil || sum.Outcome != rotation.Waiting {
			return a.report(sum, err, f.due)
		}
		if sum.For != told {
			fmt.Fprintf(a.Stderr, "  waiting for %s\n", sum.For)
			told = sum.For
		}
		pause := 10 * time.Second
		if left := sum.Until.Sub(a.Now()); !sum.Until.IsZero() && left > 0 {
			pause = min(left+10*time.Millisecond, time.Minute)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
