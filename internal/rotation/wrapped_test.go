package rotation_test

import (
	"context"
	"slices"

	"github.com/keyturn/keyturn/internal/rotation"
)

// between is a target that does something after the update of one service and
// before those of the others.
type between struct {
	rotation.Target
	after string
	do    func()
}

func (b *between) Move(ctx context.Context, shifts []rotation.Shift) (rotation.Report, error) {
	first := slices.Clone(shifts)
	first = slices.DeleteFunc(first, func(s rotation.Shift) bool { return s.Placement.Service != b.after })
	rest := slices.DeleteFunc(slices.Clone(shifts), func(s rotation.Shift) bool { return s.Placement.Service == b.after })
	report, err := b.Target.Move(ctx, first)
	if err != nil {
		return report, err
	}
	b.do()
	more, err := b.Target.Move(ctx, rest)
	report.Services = append(report.Services, more.Services...)
	return report, err
}

// unplaced is a target whose probes find no node, or run and reach nobody, or one endpoint of two.
type unplaced struct {
	rotation.Target
	ran, some bool
}

func (u *unplaced) Probe(_ context.Context, _ rotation.Version, spec rotation.ProbeSpec, _ rotation.Placement) rotation.ProbeResult {
	if !u.ran {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "no suitable node"}
	}
	found := []rotation.EndpointResult{{Endpoint: spec.Endpoints[0], Answer: rotation.Inconclusive, Reason: "no route to host"}}
	if u.some {
		found = append(found, rotation.EndpointResult{Endpoint: "another", Answer: rotation.Alive})
	}
	return rotation.ProbeResult{Endpoints: found}.Summarize()
}
