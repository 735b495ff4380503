package consul

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// probeSettings travel in [rotation.ProbeSpec.Settings].
type probeSettings struct {
	InsecureTLS []string `json:"insecure_tls,omitempty"`
	Gossip      string   `json:"gossip,omitempty"` // the fingerprint of the gossip key that is tried
}

// The codes of what an endpoint answered.
const (
	codeUnknown = "acl-not-found"
	codeOther   = "other-token"
	codeMixed   = "not-yet"
	codeBehind  = "behind"
)

// ProbeSpec says how to try a version. It does no I/O.
func (b *Backend) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	settings, err := json.Marshal(probeSettings{InsecureTLS: b.settings.InsecureTLS})
	if err != nil {
		panic("consul: " + err.Error()) // texts have a JSON form
	}
	return rotation.ProbeSpec{Backend: "consul", Identity: v.Identity, Endpoints: b.settings.probes(), CA: b.options.CA, Settings: settings}
}

// Login asks every endpoint at once who it is, and what runs on its agent. The first is
// answered by a server, from its own state; the second by the agent, from what it
// remembers of the token.
//
// Only "ACL not found", to both, is Dead, and only if the leader says it, too: a server that was
// started a moment ago knows nobody before it has read its log. A token that is not the one of
// the spec is Unfit.
// Where one of the two knows it and the other does not, it is about to be known or
// forgotten: Inconclusive, as all else is that is not success.
func Login(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	var settings probeSettings
	if len(spec.Settings) > 0 {
		if err := json.Unmarshal(spec.Settings, &settings); err != nil {
			return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe's settings are malformed"}
		}
	}
	if settings.Gossip != "" {
		return tryKey(ctx, spec, settings.Gossip, m)
	}
	token, problem := only(m, fieldToken)
	return rotation.ProbeEach(spec.Endpoints, func(endpoint string) rotation.EndpointResult {
		if problem != "" {
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: problem}
		}
		return try(ctx, spec, settings, endpoint, token)
	})
}

// only finds a field in the material, by its name, or as the one field that is there.
func only(m rotation.Material, field string) (_ secret.Value, problem string) {
	if v, ok := m[field]; ok {
		return v, ""
	}
	if fields := m.Fields(); len(fields) == 1 {
		return m[fields[0]], ""
	}
	return secret.Value{}, "no field holds the value: mount " + field
}

// try asks one endpoint.
func try(ctx context.Context, spec rotation.ProbeSpec, settings probeSettings, endpoint string, token secret.Value) rotation.EndpointResult {
	ctx, cancel := context.WithTimeout(ctx, remote.CallTimeout)
	defer cancel()
	r := rotation.EndpointResult{Answer: rotation.Inconclusive}
	over, err := newHTTP(spec.CA, settings.InsecureTLS, nil)
	if err != nil {
		r.Reason = "the authority cannot be read"
		return r
	}
	client, err := newClient(endpoint, token, over)
	if err != nil {
		r.Reason = "the endpoint cannot be read"
		return r
	}
	self, _, err := client.ACL().TokenReadSelf((&api.QueryOptions{AllowStale: true}).WithContext(ctx))
	byServer, known := isUnknown(err), err == nil
	if err != nil && !byServer {
		r.Reason = reasonOf(err)
		return r
	}
	_, err = client.Agent().ServicesWithFilterOpts("", (&api.QueryOptions{}).WithContext(ctx))
	byAgent := isUnknown(err)
	switch {
	case err != nil && !byAgent:
		r.Reason = reasonOf(err)
	case byServer && byAgent:
		switch by, err := leader(ctx, client); {
		case err != nil:
			r.Reason = "it does not know the token, and of the leader nothing is known: " + reasonOf(err)
		case by != nil:
			r.Code, r.Reason = codeBehind, "it does not know the token yet, and the leader does: it was started a moment ago, or is cut off"
		default:
			r.Answer, r.Code, r.Reason = rotation.Dead, codeUnknown, "it does not know the token"
		}
	case byServer != byAgent:
		r.Code, r.Reason = codeMixed, "the agent and its servers do not agree yet whether the token is known"
	case known && self.AccessorID != spec.Identity:
		r.Answer, r.Code, r.Reason = rotation.Unfit, codeOther, "the token that is mounted has another accessor: "+self.AccessorID
	default:
		r.Answer = rotation.Alive
	}
	return r
}

// reasonOf says why nothing is known, and holds no value: of an answer, its status alone.
func reasonOf(err error) string {
	if e, ok := errors.AsType[api.StatusError](err); ok {
		return "it answers " + http.StatusText(e.Code)
	}
	return remote.Cause(err)
}
