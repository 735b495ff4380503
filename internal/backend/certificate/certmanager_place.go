package certificate

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A secretPlace is the Secret in which cert-manager keeps a certificate with its key, and
// whoever serves it from there. Nothing is put there and nothing moved: it is looked at from
// outside, by the endpoints under probe.
type secretPlace struct {
	rotation.Held
	m *Managed
}

var (
	_ rotation.Target      = secretPlace{}
	_ rotation.Preflighter = secretPlace{}
)

// Place implements [rotation.Placed].
func (m *Managed) Place() rotation.Target { return secretPlace{m: m} }

// Traits implements [rotation.Target].
func (secretPlace) Traits() rotation.Traits { return rotation.Traits{} }

var errElsewhere = errors.New("certificate: cert-manager puts certificates where services read them, and nobody else")

// Put implements [rotation.Target].
func (secretPlace) Put(_ context.Context, v rotation.Version, _ rotation.Material) (rotation.Version, error) {
	return v, errElsewhere
}

// Move implements [rotation.Target].
func (secretPlace) Move(context.Context, []rotation.Shift) (rotation.Report, error) {
	return rotation.Report{}, errElsewhere
}

// Preflight implements [rotation.Preflighter]: the backend's own says it all.
func (secretPlace) Preflight(context.Context, rotation.Credential) error { return nil }

// Observe says which addresses serve a version.
func (p secretPlace) Observe(ctx context.Context, v rotation.Version) (rotation.Holding, error) {
	found, err := issuedOf(v)
	if err != nil || found == nil {
		return rotation.Holding{}, err
	}
	t := trial{settings: p.m.loginOf(v, found), roots: p.m.look.roots, found: found}
	out := rotation.Holding{Complete: true}
	for _, endpoint := range p.m.settings.Probe {
		seen, err := t.seen(ctx, endpoint)
		if err != nil {
			return rotation.Holding{}, err
		}
		for _, s := range seen {
			if s.err != nil {
				return rotation.Holding{}, unknown("run it again when it does", "%s, an address of %s, does not say which certificate it has: %v", s.address, endpoint, s.err)
			}
			if s.ours {
				out.Uses = append(out.Uses, rotation.Use{Kind: "address", Name: s.address, Detail: "of " + endpoint,
					Hint: "what serves there has not read the Secret again: reload it"})
			}
		}
	}
	return out, nil
}

// loginOf is what a trial of a version needs.
func (m *Managed) loginOf(v rotation.Version, i *issuance) loginSettings {
	return loginSettings{Names: namesOf(i.leaf), State: v.State, Fingerprint: fingerprint(i.leaf), CRL: m.settings.CRL}
}

// ProbeSpec says how to try a version: by looking from here.
func (m *Managed) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	return rotation.ProbeSpec{Backend: "certificate", Identity: v.Identity, Endpoints: m.settings.Probe}
}

// Probe looks whether a version is served: of the one in service every address must, with a
// chain that clients take. One is Dead if cert-manager has another one in its place, or if it
// was revoked or its time is over, and no address serves it.
func (p secretPlace) Probe(ctx context.Context, v rotation.Version, spec rotation.ProbeSpec, _ rotation.Placement) rotation.ProbeResult {
	found, err := issuedOf(v)
	if err != nil || found == nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "no certificate of it is on the record"}
	}
	s, err := p.m.state(ctx)
	if err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: err.Error()}
	}
	return p.m.trial(ctx, v, found, s).all(ctx, spec.Endpoints)
}

// trial judges a certificate by what cert-manager and its authority say of it.
func (m *Managed) trial(ctx context.Context, v rotation.Version, i *issuance, s state) trial {
	t := trial{settings: m.loginOf(v, i), roots: m.look.roots, found: i, own: rotation.EndpointResult{Answer: rotation.Alive}}
	dead, err := m.ended(ctx, i)
	switch {
	case !s.is(i):
		t.own = rotation.EndpointResult{Answer: rotation.Dead, Code: "superseded", Reason: s.instead()}
		if v.State == rotation.Current && s.Metadata.UID == v.Public[publicUID] {
			t.own.Reason += ", by itself: the next rotation takes it over"
		}
	case err != nil:
		t.own = rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: err.Error()}
	case dead != "":
		t.own = rotation.EndpointResult{Answer: rotation.Dead, Code: "ended", Reason: dead}
	default:
		if err := i.trusted(m.look.roots, t.settings.Names, time.Now()); err != nil {
			t.own = rotation.EndpointResult{Answer: rotation.Unfit, Reason: err.Error()}
		}
	}
	return t
}

// all asks every endpoint.
func (t trial) all(ctx context.Context, endpoints []string) rotation.ProbeResult {
	return rotation.ProbeEach(endpoints, func(endpoint string) rotation.EndpointResult { return t.at(ctx, endpoint) })
}
