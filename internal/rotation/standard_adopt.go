package rotation

import (
	"context"
	"errors"
)

// Adopt checks that a version which the target found can be rotated from, and
// proves by a probe that it works. It reads only.
func (s *Standard) Adopt(ctx context.Context, found Version) (Adoption, error) {
	found.Credential, found.Number, found.State = s.Name, 1, Current
	adopter, ok := s.Backend.(Adopter)
	if !ok {
		return Adoption{}, errors.New("the backend takes over no versions")
	}
	v, err := adopter.Adopt(ctx, found)
	if err != nil {
		return Adoption{}, err
	}
	if p, ok := s.Target.(Preflighter); ok {
		if err := p.Preflight(ctx, Credential{Name: s.Name, Versions: []Version{v}, Burnt: 1}); err != nil {
			return Adoption{}, err
		}
	}
	if b, ok := s.Backend.(Ceremony); ok {
		said, err := b.InForce(ctx, v)
		return Adoption{Version: v, Evidence: map[string]any{"in_force": said}}, err
	}
	r := s.probeUntil(ctx, v)
	if r.Answer == Inconclusive {
		return Adoption{}, Errorf(Unknown, "look at the probe endpoints and at what the services mount, then run it again",
			"cannot tell whether what the services mount now works: %s", r.Reason)
	}
	if r.Answer != Alive {
		return Adoption{}, Errorf(Refused, "look at the probe endpoints and at what the services mount",
			"what the services mount now does not work: %s: %s", r.Answer, r.Reason)
	}
	return Adoption{Version: v, Evidence: map[string]any{"probe": r}}, nil
}
