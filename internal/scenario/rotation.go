package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Rotation says how long the parts of one rotation took, and what the logins
// came to meanwhile.
type Rotation struct {
	Phases []Phase
	Tried  int // logins from the first command's start to the last one's end
	Failed int
	Lasted time.Duration // the time of those logins
	Killed bool          // killed in the middle of cutover, and gone on with
	// Old is what our own logins with the credentials of before came to
	// afterwards: that of this rotation is the last one.
	Old []Answer
}

// A Phase is a phase of Keyturn or a step of the script.
type Phase struct {
	Name   string
	Began  time.Time
	Took   time.Duration
	Update Update // of the script: what Swarm did of it
	Runs   []Run  // one, unless it waited or was killed
}

// An Update is the last update of the stack's service by Swarm's own record:
// UpdateStatus, from StartedAt to CompletedAt, or to when it was looked at.
type Update struct{ Began, Ended time.Time }

// Within is the time that the update went on in a span of time.
func (u Update) Within(from, to time.Time) time.Duration {
	if u.Began.After(from) {
		from = u.Began
	}
	if u.Ended.Before(to) {
		to = u.Ended
	}
	return max(0, to.Sub(from))
}

// Took is the time of the named phases, or of all.
func (r Rotation) Took(names ...string) time.Duration {
	var sum time.Duration
	for _, p := range r.Phases {
		if len(names) == 0 {
			sum += p.Took
		}
		for _, n := range names {
			if n == p.Name {
				sum += p.Took
			}
		}
	}
	return sum
}

// counted does something and counts the logins that are tried and that fail
// meanwhile.
func (k *Stack) counted(r *Rotation, do func() error) error {
	before, err := k.Load()
	if err != nil {
		return err
	}
	begun := time.Now()
	doing := do()
	r.Lasted = time.Since(begun)
	after, err := k.Load()
	r.Tried, r.Failed = after.Tried()-before.Tried(), after.Failed-before.Failed
	return errors.Join(doing, err)
}

// Rotate takes an adopted stack through prepare, validate, cutover and cleanup,
// and then logs in with what the tasks held before. If kill is set, cutover is
// killed in its middle and run again.
func (k *Stack) Rotate(ctx context.Context, kill bool) (Rotation, error) {
	r := Rotation{Killed: kill}
	err := k.rotate(ctx, &r)
	if err != nil {
		return r, fmt.Errorf("rotating %q: %w", k.Credential(), err)
	}
	return r, nil
}

func (k *Stack) rotate(ctx context.Context, r *Rotation) error {
	if err := k.remember(ctx); err != nil {
		return err
	}
	err := k.counted(r, func() error {
		for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
			p, err := k.phase(ctx, phase, r.Killed && phase == "cutover")
			r.Phases = append(r.Phases, p)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.Old, err = k.tryOld(ctx)
	return err
}

// phase runs one phase.
func (k *Stack) phase(ctx context.Context, name string, kill bool) (Phase, error) {
	began := time.Now()
	p, err := k.runPhase(ctx, name, kill)
	p.Began = began
	return p, err
}

// runPhase runs one phase. Cleanup is asked again until the overlap is over;
// that wait is not counted.
func (k *Stack) runPhase(ctx context.Context, name string, kill bool) (Phase, error) {
	s, p := k.scene, Phase{Name: name}
	if kill {
		run, err := s.KeyturnKilled(ctx, k)
		p.add(run)
		if err != nil {
			return p, err
		}
		status, err := s.Keyturn(ctx, "status")
		if err := errors.Join(err, status.OK()); err != nil {
			return p, err
		}
	}
	const refused = 3
	for try := 1; ; try++ {
		run, err := s.Keyturn(ctx, name, k.Credential())
		if err != nil {
			return p, err
		}
		if name != "cleanup" || run.Code != refused || try > 20 {
			p.add(run)
			return p, run.OK()
		}
		fmt.Fprintf(s.Out, "    ended with status %d; asked again in %s\n", run.Code, s.Overlap)
		p.Runs = append(p.Runs, run)
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-time.After(s.Overlap):
		}
	}
}

func (p *Phase) add(r Run) {
	p.Runs = append(p.Runs, r)
	p.Took += r.Took
}
