package cli

import (
	"context"
	"fmt"
	"slices"
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
	queue     bool // what could not be ended or removed yet, of every credential
	reason    string
	plan      string
	glass     string // why it is done without approvals
	ticket    string // where that is followed up
	revoking  string // why it is done without waiting for anybody
	resumed   bool   // it is brought to the end that somebody else began
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
	return append(cmds, a.rotateCommand(), a.rollbackCommand(), a.revokeCommand())
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
		planFlag(cmd, &f)
		cmd.Flags().BoolVar(&f.emergency, "emergency", false, "do not wait until a window is open")
	case rotation.Cleanup:
		cmd.Flags().StringVar(&f.force, "force", "", "do not wait for the overlap; the `reason` is recorded")
		cmd.Flags().BoolVar(&f.queue, "queue", false, "try again, of every credential, what could not be ended or removed yet")
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
	planFlag(cmd, &f)
	return cmd
}

// planFlag lets a command be held to a plan, and be approved by it; or be done
// without approvals.
func planFlag(cmd *cobra.Command, f *phaseFlags) {
	cmd.Flags().StringVar(&f.plan, "plan", "", "refuse unless the plan still has this `hash`, which was shown to those who approve")
	cmd.Flags().StringVar(&f.glass, "break-glass", "", "do it without approvals, as an administrator; the `reason` is recorded, and must be reviewed by somebody else")
	cmd.Flags().StringVar(&f.ticket, "ticket", "", "of --break-glass: where it is followed up")
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

// runPhases runs one phase for every rotation that the named credentials belong to.
func (a *app) runPhases(ctx context.Context, names []string, f phaseFlags, phase rotation.Phase) error {
	w, err := a.wire(ctx, f, false)
	if err != nil {
		return err
	}
	defer w.close()
	if f.queue {
		if names, err = w.queued(ctx, names, f.due); err != nil {
			return err
		}
		if len(names) == 0 {
			a.nothing("nothing is on the retirement queue")
			return nil
		}
	}
	groups, err := a.groups(ctx, w, names, f.due, phase)
	if err != nil {
		return err
	}
	if f.plan != "" {
		if err := w.samePlan(ctx, groups, f.plan, phase); err != nil {
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

// queued are the credentials of which something waits on the retirement queue.
func (w *wiring) queued(ctx context.Context, names []string, due bool) ([]string, error) {
	if len(names) > 0 || due {
		return nil, usagef("leave them out", "--queue is of every credential: it takes no names, and no --due")
	}
	ledger, err := w.ledger(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(namesOf(w.cfg), func(name string) bool { return len(ledger.Credential(name).Queue) == 0 }), nil
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
	f.reason, f.resumed = "an interrupted rollback is brought to its end", true
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
func (w *wiring) samePlan(ctx context.Context, groups [][]string, hash string, phase rotation.Phase) error {
	if len(groups) != 1 {
		return usagef("name the credentials of that plan, and no others", "--plan is the plan of one batch, and %d batches are asked for", len(groups))
	}
	found, err := w.planHash(ctx, groups[0], phase)
	if err != nil {
		return err
	}
	if found != hash {
		names := strings.Join(groups[0], " ")
		return rotation.Errorf(rotation.Refused, "look at it again: keyturn plan "+names,
			"the plan of %s is %s now, not %s", names, found, hash)
	}
	return nil
}

// planHash is the hash of a batch's plan as it is now: of its rollback, or of its rotation.
func (w *wiring) planHash(ctx context.Context, group []string, phase rotation.Phase) (string, error) {
	if phase != rotation.Rollback {
		phase = anyPhase
	}
	batch, err := w.standards(group)
	if err != nil {
		return "", err
	}
	p, err := w.engine.Plan(ctx, phase, batch...)
	return p.Hash, err
}
