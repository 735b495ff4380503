package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// A Ceremony is a backend whose versions no service reads and Keyturn never has: people hold
// them, as the shares of a key, or nobody does, as with a key inside its system. The next
// version is made and comes into force in the cutover, after the approval, by steps of
// the backend's own, and cleanup proves by others that the one before is dead. Its place
// is [Held], and its procedure what [NewCeremony] makes.
//
// The steps of a cutover take no way back that they cannot know: where it may be that the
// next version is in force, their Undo is refused.
type Ceremony interface {
	Placed
	Preflighter

	// CeremonySteps returns the steps of a cutover, of a cleanup, or of a rollback once the
	// next version is in force by the record. One of the cleanup's has the effect [End], and a
	// later one [Prove].
	CeremonySteps(Phase) []Step

	// InForce says in a clause, for people, what is known of the version that is in force.
	// It reads only.
	InForce(context.Context, Version) (string, error)
}

// NewCeremony returns the procedure of a ceremony.
func NewCeremony(s *Standard, b Ceremony) Procedure { return &ceremonial{s, b} }

type ceremonial struct {
	*Standard
	ceremony Ceremony
}

// Steps implements [Procedure].
func (p *ceremonial) Steps(phase Phase) (before, after []Step) {
	switch phase {
	case Prepare:
		return []Step{{Name: "preflight", Do: p.preflight}, {Name: "identify", Do: p.identify}}, nil
	case Validate:
		return []Step{{Name: "ready", Do: func(ctx context.Context, c Credential) (Result, error) {
			return Result{}, p.ceremony.Preflight(ctx, c)
		}}}, nil
	}
	return p.ceremony.CeremonySteps(phase), nil
}

// Settle implements [Procedure]: nothing is made before the cutover.
func (p *ceremonial) Settle(context.Context, Credential) (Verdict, error) { return Keep, nil }

// checkCeremony is what can be told of versions that nobody can try.
func (s *Standard) checkCeremony(ctx context.Context, b Ceremony, current Version) []Remark {
	said, err := b.InForce(ctx, current)
	if err != nil {
		return []Remark{{Level: Problem, Text: fmt.Sprintf("how version %d stands cannot be told: %v", current.Number, err), Hint: HintOf(err)}}
	}
	return []Remark{{Level: Fine, Text: fmt.Sprintf("version %d: %s", current.Number, said)}}
}

// Held is the place of a [Ceremony]: no service reads its versions, and nothing of them
// is stored anywhere. Other places in which nothing is put are built on it.
type Held struct{}

var _ Target = Held{}

var errHeld = errors.New("no service reads the credential: nothing of it is stored")

// Traits implements [Target].
func (Held) Traits() Traits { return Traits{Unprobeable: true} }

// Put implements [Target]. It is an error.
func (Held) Put(context.Context, Version, Material) (Version, error) { return Version{}, errHeld }

// Observe implements [Target].
func (Held) Observe(context.Context, Version) (Holding, error) { return Holding{Complete: true}, nil }

// Snapshot implements [Target].
func (Held) Snapshot(context.Context, []Placement) (map[string]json.RawMessage, error) {
	return nil, nil
}

// Move implements [Target].
func (Held) Move(context.Context, []Shift) (Report, error) { return Report{}, nil }

// Remove implements [Target].
func (Held) Remove(context.Context, Version) error { return nil }

// Orphans implements [Target].
func (Held) Orphans(context.Context, string) ([]Orphan, error) { return nil, nil }

// Probe implements [Target].
func (Held) Probe(context.Context, Version, ProbeSpec, Placement) ProbeResult {
	return ProbeResult{Answer: Inconclusive, Reason: errHeld.Error()}
}

// Adopt returns a version of which nothing is stored.
func (Held) Adopt(_ context.Context, credential string) (Version, error) {
	return Version{Credential: credential}, nil
}
