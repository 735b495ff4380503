package certificate

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// trusts tries a bundle as who mounts it would: every address of every endpoint must serve, by
// each name, a certificate that it verifies. It is Unfit if one does not, and never Dead: no
// system refuses a bundle.
func (s loginSettings) trusts(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	var all []*x509.Certificate
	for _, field := range m.Fields() {
		if roots, err := rootsIn(m[field].Reveal()); err == nil {
			all = append(all, roots...)
		}
	}
	if len(all) == 0 {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "nothing that is mounted holds authorities: mount bundle"}
	}
	if mounted := slices.Compact(printsOf(all)); !slices.Equal(mounted, s.Trust) {
		return rotation.ProbeResult{Answer: rotation.Unfit, Reason: fmt.Sprintf("what is mounted has other authorities (%d) than the version (%d)", len(mounted), len(s.Trust))}
	}
	pool := x509.NewCertPool()
	for _, r := range all {
		pool.AddCert(r)
	}
	t := trial{settings: s, roots: pool}
	return rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult { return t.verified(ctx, endpoint) })
}

// verified looks whether every address of an endpoint serves what the roots verify.
func (t trial) verified(ctx context.Context, endpoint string) rotation.EndpointResult {
	seen, err := t.seen(ctx, endpoint)
	if err != nil {
		return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: err.Error()}
	}
	for _, s := range seen {
		if s.err != nil {
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: fmt.Sprintf("%s: %v", s.address, s.err)}
		}
	}
	for _, s := range seen {
		if s.distrust != nil {
			return rotation.EndpointResult{Answer: rotation.Unfit, Code: "untrusted",
				Reason: fmt.Sprintf("%s serves certificate %s, signed by %q, which these authorities do not verify: %v", s.address, s.serial, s.by, s.distrust)}
		}
	}
	return rotation.EndpointResult{Answer: rotation.Alive}
}

// distrusts says why a client refuses what is served, or nil.
func (t trial) distrusts(served []*x509.Certificate) error {
	sent := &issuance{leaf: served[0], chain: served}
	return sent.trusted(t.roots, t.settings.Names, time.Now())
}
