package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// group is the part of a move that one target makes.
type group struct {
	target Target
	procs  []Procedure
	shifts []Shift
}

// groups collects the shifts of every procedure by target, so that a service
// that reads several credentials of the batch is updated once.
func (s *session) groups(phase Phase) []*group {
	var out []*group
	for _, p := range s.procs {
		c := s.view(p)
		if c.Open == nil || phase != Rollback && s.done(c) {
			continue
		}
		target, shifts := p.Shifts(phase, c)
		if target == nil || len(shifts) == 0 {
			continue
		}
		for i := range shifts {
			shifts[i].Known, shifts[i].Rotation = c.Known(), s.id
			shifts[i].Before = c.Open.Before[shifts[i].Placement.Service]
		}
		out = join(out, target, p, shifts)
	}
	return out
}

func join(groups []*group, target Target, p Procedure, shifts []Shift) []*group {
	for _, g := range groups {
		if g.target == target {
			g.procs, g.shifts = append(g.procs, p), append(g.shifts, shifts...)
			return groups
		}
	}
	return append(groups, &group{target: target, procs: []Procedure{p}, shifts: shifts})
}

// shift makes the move of a phase, one per target, with a record before and
// after for every credential. A credential for which nothing moves is recorded
// as moved: its services read it from elsewhere.
func (s *session) shift(ctx context.Context, phase Phase, name string, effect Effect) error {
	step := Step{Name: name, Effect: effect}
	if phase == Rollback {
		step.On = LastVersion
	}
	groups := s.groups(phase)
	if len(groups) == 0 && effect == Beside {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, p := range s.procs {
		if c := s.view(p); c.Open == nil || phase != Rollback && s.done(c) {
			continue
		}
		if effect == Beside && !has(groups, p) {
			continue
		}
		if err := s.begin(ctx, p, phase, step, RecordStarted); err != nil {
			return err
		}
		s.tell(Event{Credential: p.Credential(), Phase: phase, Step: name, Status: RecordStarted})
	}
	var reports []ServiceReport
	for _, g := range groups {
		report, err := s.makeMove(ctx, phase, step, g)
		reports = append(reports, report.Services...)
		s.out.Services = append(s.out.Services, report.Services...)
		if err != nil {
			return err
		}
	}
	return s.moved(ctx, phase, step, groups, reports)
}

func has(groups []*group, p Procedure) bool {
	for _, g := range groups {
		for _, q := range g.procs {
			if q == p {
				return true
			}
		}
	}
	return false
}

func (s *session) makeMove(ctx context.Context, phase Phase, step Step, g *group) (Report, error) {
	begun, name := s.now(), step.Name
	s.hook("before effect: %s %s", phase, name)
	report, err := g.target.Move(s.within(ctx), g.shifts)
	s.hook("after effect: %s %s", phase, name)
	if err == nil {
		return report, nil
	}
	err = fmt.Errorf("%s: %s: %w", gerund(phase), name, err)
	for _, p := range g.procs {
		s.blame(p, phase, step, map[string]any{"services": report.Services}, err)
		rec := s.recordOf(p, phase, step, RecordFailed, "services", report.Services, "ms", s.now().Sub(begun).Milliseconds(), "error", err.Error())
		if ferr := s.append(ctx, rec); ferr != nil {
			err = errors.Join(err, ferr)
		}
		s.tell(Event{Credential: p.Credential(), Phase: phase, Step: name, Status: RecordFailed, Text: err.Error()})
	}
	return report, err
}

func (s *session) moved(ctx context.Context, phase Phase, step Step, groups []*group, reports []ServiceReport) error {
	var records []Record
	for _, p := range s.procs {
		c := s.view(p)
		if c.Open == nil || phase != Rollback && s.done(c) || step.Effect == Beside && !has(groups, p) {
			continue
		}
		records = append(records, s.recordOf(p, phase, step, RecordDone, "services", reports))
		s.tell(Event{Credential: p.Credential(), Phase: phase, Step: step.Name, Status: RecordDone})
	}
	return s.append(ctx, records...)
}

// snapshot returns how the services of a procedure are before the rotation.
func (s *session) snapshot(ctx context.Context, p Procedure, phase Phase) (map[string]json.RawMessage, error) {
	target, shifts := p.Shifts(phase, s.view(p))
	if target == nil || len(shifts) == 0 {
		return nil, nil
	}
	var placements []Placement
	for _, sh := range shifts {
		placements = append(placements, sh.Placement)
	}
	before, err := target.Snapshot(ctx, placements)
	if err != nil {
		return nil, fmt.Errorf("looking at the services of %q: %w", p.Credential(), err)
	}
	return before, nil
}
