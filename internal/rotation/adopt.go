package rotation

import (
	"context"
	"errors"
	"fmt"
)

// Adoption is what [Engine.Adopt] puts on the record.
type Adoption struct {
	Version  Version
	Evidence map[string]any // the probe that proved that the version works
}

// Adopt records a version that services use already as version 1. Look gathers
// it, reading only; it runs while we hold the lease.
func (e *Engine) Adopt(ctx context.Context, credential string, opt Options, look func(context.Context) (Adoption, error)) (c Credential, err error) {
	s := newSession(e, Adopt, opt)
	s.procs = []Procedure{named(credential)}
	if err := s.load(ctx); err != nil {
		return Credential{}, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.lease(ctx, credential); err != nil {
		return Credential{}, err
	}
	if err := s.load(ctx); err != nil {
		return Credential{}, err
	}
	rec := Record{Credential: credential, Version: 1, Phase: Adopt, Step: stepAdopt, Status: RecordDone}
	probe := rec
	probe.Evidence = evidence(keyVersion, Version{Credential: credential, Number: 1}, keyEpoch, s.leases[credential].Holder().Epoch)
	if err := s.ledger.Clone().Apply(probe); err != nil {
		return Credential{}, err
	}
	found, err := look(ctx)
	if err != nil {
		return Credential{}, fmt.Errorf("adopting %q: %w", credential, err)
	}
	found.Version.Credential, found.Version.Number, found.Version.State = credential, 1, Current
	rec.Identity, rec.Evidence = found.Version.Identity, evidence(keyVersion, found.Version)
	describe(&rec, Result{Evidence: found.Evidence}, nil)
	err = s.append(ctx, rec)
	return s.ledger.Credential(credential), err
}

// named is a procedure that has only a name: for leases.
type named string

func (n named) Credential() string                                { return string(n) }
func (named) Steps(Phase) (before, after []Step)                  { return nil, nil }
func (named) Shifts(Phase, Credential) (Target, []Shift)          { return nil, nil }
func (named) Tend(context.Context, Credential) (Result, error)    { return Result{}, nil }
func (named) Settle(context.Context, Credential) (Verdict, error) { return Keep, nil }
