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
	Killed bool // killed in the middle of cutover, and gone on with
}

// A Phase is a phase of Keyturn or a step of the script.
type Phase struct {
	Name string
	Took time.Duration
	Runs []Run // one, unless it waited or was killed
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

// counted runs something and says how many logins were tried and failed meanwhile.
func (k *Stack) counted(do func() error) (tried, failed int, err error) {
	before, err := k.Load()
	if err != nil {
		return 0, 0, err
	}
	doing := do()
	after, err := k.Load()
	return after.Tried() - before.Tried(), after.Failed - before.Failed, errors.Join(doing, err)
}

// Rotate takes an adopted stack through prepare, validate, cutover and cleanup.
// If kill is set, cutover is killed in its middle and run again.
func (k *Stack) Rotate(ctx context.Context, kill bool) (Rotation, error) {
	r := Rotation{Killed: kill}
	var err error
	r.Tried, r.Failed, err = k.counted(func() error {
		for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
			p, err := k.phase(ctx, phase, kill && phase == "cutover")
			r.Phases = append(r.Phases, p)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("rotating %q: %w", k.Credential(), err)
	}
	return r, nil
}

// phase runs one phase. Cleanup is asked again until the overlap is over; that
// wait is not counted.
func (k *Stack) phase(ctx context.Context, name string, kill bool) (Phase, error) {
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
