package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// rotate takes every rotation to where it must wait.
func (a *app) rotate(ctx context.Context, names []string, f phaseFlags) error {
	w, err := a.wire(ctx, f, false)
	if err != nil {
		return err
	}
	defer w.close()
	groups, err := a.groups(ctx, w, names, f.due, anyPhase)
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		a.nothing("nothing is due")
		return nil
	}
	if !f.due {
		return a.each(ctx, groups, func(group []string) error { return a.rotateGroup(ctx, w, group, f) })
	}
	return a.each(ctx, groups, func(group []string) error { return a.rotateDue(ctx, w, group, f) })
}

// rotateDue brings what is open forward, and begins what is due then: never
// again at once what was just brought into service, or was given up.
func (a *app) rotateDue(ctx context.Context, w *wiring, group []string, f phaseFlags) error {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return err
	}
	queued := slices.ContainsFunc(group, func(name string) bool { return len(ledger.Credential(name).Queue) > 0 })
	c := ledger.Credential(group[0])
	switch next := rotation.NextPhase(c); {
	case next == rotation.Rollback:
		err = a.endRollback(ctx, w, group, f)
	case next == rotation.Cleanup, c.Open == nil && queued:
		var sum rotation.Summary
		sum, err = a.cleanUp(ctx, w, group, f)
		err = a.report(sum, err, f.due)
	case c.Open != nil:
		return a.forward(ctx, w, group, f)
	}
	if err != nil {
		return err
	}
	groups, err := w.dueOf(ctx, group, rotation.Prepare)
	if err != nil {
		return err
	}
	return a.each(ctx, groups, func(group []string) error { return a.forward(ctx, w, group, f) })
}

// rotateGroup begins a rotation, or goes on with the one that is open. One that
// waits for its cleanup is cleaned up before the next begins.
func (a *app) rotateGroup(ctx context.Context, w *wiring, group []string, f phaseFlags) error {
	next, err := w.next(ctx, group)
	if err != nil {
		return err
	}
	if next == rotation.Cleanup {
		sum, err := a.cleanUp(ctx, w, group, f)
		if err := a.report(sum, err, f.due); err != nil {
			return err
		}
	}
	return a.forward(ctx, w, group, f)
}

// forward takes a rotation from where it is to its cutover.
func (a *app) forward(ctx context.Context, w *wiring, group []string, f phaseFlags) error {
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
		sum, err := a.cleanUp(ctx, w, group, f)
		return a.report(sum, err, f.due)
	}
	return nil
}

// cleanUp runs a cleanup; with --wait it asks again until the previous version is dead.
func (a *app) cleanUp(ctx context.Context, w *wiring, group []string, f phaseFlags) (rotation.Summary, error) {
	told := ""
	for {
		sum, err := w.do(ctx, rotation.Cleanup, group, f)
		if err != nil || sum.Outcome != rotation.Waiting || !f.wait {
			return sum, err
		}
		if sum.For != told {
			fmt.Fprintf(a.Stderr, "  waiting for %s\n", sum.For)
			told = sum.For
		}
		pause := 10 * time.Second
		if left := sum.Until.Sub(a.Now()); !sum.Until.IsZero() && left > 0 {
			// Nothing ends before that; a look now and then is for the services.
			pause = min(left+10*time.Millisecond, max(time.Minute, left/10))
		}
		select {
		case <-ctx.Done():
			return sum, ctx.Err()
		case <-time.After(pause):
		}
	}
}
