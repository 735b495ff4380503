package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// probeSettings travel in [rotation.ProbeSpec.Settings].
type probeSettings struct {
	Mount       string   `json:"mount"`
	Role        string   `json:"role"`
	RoleID      string   `json:"role_id"`
	Metadata    string   `json:"metadata,omitempty"` // digest; of one that has no title
	InsecureTLS []string `json:"insecure_tls,omitempty"`
}

// The codes of what an endpoint answered.
const (
	codeRefused = "invalid-secret-id"
	codeOther   = "other-secret-id"
	codeRole    = "invalid-role-id"
	codeBatch   = "batch-token"
	codeMFA     = "mfa"
	codeLimit   = "permission-denied"
)

// ProbeSpec says how to try a version. It does no I/O.
func (b *Backend) ProbeSpec(v rotation.Version) rotation.ProbeSpec {
	settings, err := json.Marshal(probeSettings{Mount: b.role.mount(), Role: b.role.Role, RoleID: v.Public[fieldRoleID], Metadata: v.Public[publicMetadata], InsecureTLS: b.settings.InsecureTLS})
	if err != nil {
		panic("vault: " + err.Error()) // texts have a JSON form
	}
	return rotation.ProbeSpec{Backend: "vault", Identity: v.Identity, Endpoints: b.settings.probes(), CA: b.options.CA, Settings: settings, Sparing: true}
}

// Login logs in at every endpoint, and gives the token back.
//
// Only "invalid role or secret ID", for a role-id that Vault knows, is Dead. A secret-id
// that is not the one of the spec is Unfit. All else that is not success is Inconclusive.
//
// Vault locks a role out, for all who log in with it, after five refusals. So a secret-id
// that one endpoint refused is not tried at another one of the same cluster: whatever node
// is asked, the one that leads decides. But OpenBao's others refuse by themselves what has not
// come to them yet, and count that by themselves: the one that leads is tried first, and one
// that follows is tried once more.
func Login(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
	t := trial{spec: spec}
	if err := json.Unmarshal(spec.Settings, &t.settings); err != nil {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: "the probe's settings are malformed"}
	}
	var problem string
	if t.roleID, t.secretID, problem = credentialIn(m, t.settings.RoleID); problem != "" {
		return rotation.ProbeEach(spec.Endpoints, func(string) rotation.EndpointResult {
			return rotation.EndpointResult{Answer: rotation.Inconclusive, Reason: problem}
		})
	}
	spec.Endpoints = t.leaderFirst(ctx)
	first := rotation.ProbeEach(spec.Endpoints[:min(1, len(spec.Endpoints))], func(endpoint string) rotation.EndpointResult { return t.try(ctx, endpoint) })
	if len(spec.Endpoints) < 2 {
		return first
	}
	cluster := ""
	if first.Answer == rotation.Dead {
		cluster = t.cluster(ctx, spec.Endpoints[0])
	}
	rest := rotation.ProbeEach(spec.Endpoints[1:], func(endpoint string) rotation.EndpointResult {
		if cluster != "" && t.cluster(ctx, endpoint) == cluster {
			return rotation.EndpointResult{Answer: rotation.Dead, Code: codeRefused, Reason: "it is of the cluster that refuses the secret-id"}
		}
		return t.try(ctx, endpoint)
	})
	return rotation.ProbeResult{Endpoints: slices.Concat(first.Endpoints, rest.Endpoints)}.Summarize()
}

// credentialIn finds the secret-id in the material, and the role-id if it is mounted: the
// field secret_id, or else the one field that is there.
func credentialIn(m rotation.Material, roleID string) (_ string, _ secret.Value, problem string) {
	if v, ok := m[fieldRoleID]; ok {
		roleID = string(v.Reveal())
	}
	if v, ok := m[fieldSecretID]; ok {
		return roleID, v, ""
	}
	if fields := m.Fields(); len(fields) == 1 {
		return roleID, m[fields[0]], ""
	}
	return "", secret.Value{}, "no field holds a secret-id: mount secret_id"
}

// A trial is one credential, to be tried at endpoints.
type trial struct {
	spec     rotation.ProbeSpec
	settings probeSettings
	roleID   string
	secretID secret.Value
}

// try logs in at one endpoint.
func (t trial) try(ctx context.Context, endpoint string) rotation.EndpointResult {
	ctx, cancel := context.WithTimeout(ctx, remote.CallTimeout)
	defer cancel()
	r := rotation.EndpointResult{Answer: rotation.Inconclusive}
	s, err := vaultapi.NewServer(endpoint, secret.Value{}, t.spec.CA, t.settings.InsecureTLS, nil)
	if err != nil {
		r.Reason = "the endpoint or the authority cannot be read"
		return r
	}
	defer s.Close()
	credential := map[string]any{fieldRoleID: t.roleID, fieldSecretID: string(t.secretID.Reveal())}
	made, err := t.login(ctx, s, credential)
	if isRefused(err) && vaultapi.CaughtUp(ctx, s) {
		made, err = t.login(ctx, s, credential)
	}
	switch {
	case isRefused(err):
		return t.refused(ctx, s)
	case err != nil:
		r.Code, r.Reason = codeOf(err), reasonOf(err)
	case made == nil || made.Auth == nil || made.Auth.ClientToken == "":
		r.Code, r.Reason = codeMFA, "it answers with no token: does the role ask for a second factor?"
	default:
		r.Answer, r.Code, r.Reason = t.judge(made.Auth)
		t.giveBack(ctx, s, made.Auth.ClientToken)
	}
	return r
}

func (t trial) login(ctx context.Context, s vaultapi.Server, with map[string]any) (*api.Secret, error) {
	return s.API.Logical().WriteWithContext(ctx, "auth/"+t.settings.Mount+"/login", with)
}

// refused tells a secret-id that is not known from a role-id that is not, which Vault answers
// alike: with a role-id that it knows and no secret-id, it misses the secret-id. That counts
// as no refusal.
func (t trial) refused(ctx context.Context, s vaultapi.Server) rotation.EndpointResult {
	_, err := t.login(ctx, s, map[string]any{fieldRoleID: t.roleID})
	if a := vaultapi.Answered(err); a != nil && a.Status == http.StatusBadRequest && a.Text == "missing secret_id" {
		return rotation.EndpointResult{Answer: rotation.Dead, Code: codeRefused, Reason: "it does not know the secret-id"}
	}
	if isRefused(err) {
		return rotation.EndpointResult{Answer: rotation.Inconclusive, Code: codeRole, Reason: "it does not know the role-id"}
	}
	return rotation.EndpointResult{Answer: rotation.Inconclusive, Code: codeOf(err), Reason: reasonOf(err)}
}

// judge says whether a token was made from the secret-id that was to be tried.
func (t trial) judge(made *api.SecretAuth) (_ rotation.Answer, code, reason string) {
	title, titled := made.Metadata[metaKey]
	switch {
	case !strings.EqualFold(made.Metadata[metaRole], t.settings.Role):
		return rotation.Unfit, codeOther, "it is taken, and is of the role " + made.Metadata[metaRole]
	case titled && title != t.spec.Identity:
		return rotation.Unfit, codeOther, "the secret-id that is mounted is of another version: " + title
	case !titled && (t.settings.Metadata == "" || digest(made.Metadata) != t.settings.Metadata):
		return rotation.Unfit, codeOther, "the secret-id that is mounted has other metadata than the one on the record"
	case made.Accessor == "":
		return rotation.Unfit, codeBatch, "the role makes batch tokens, which nobody can revoke"
	}
	return rotation.Alive, "", ""
}

// giveBack revokes the token of a trial. A role whose tokens may not do that leaves it to
// its time.
func (t trial) giveBack(ctx context.Context, s vaultapi.Server, token string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	s.API.SetToken(token)
	_, _ = s.API.Logical().WriteWithContext(ctx, "auth/token/revoke-self", nil)
}

// cluster is the id of the cluster that an endpoint is of; "" if it does not say.
func (t trial) cluster(ctx context.Context, endpoint string) string {
	ctx, cancel := context.WithTimeout(ctx, remote.CallTimeout)
	defer cancel()
	s, err := vaultapi.NewServer(endpoint, secret.Value{}, t.spec.CA, t.settings.InsecureTLS, nil)
	if err != nil {
		return ""
	}
	defer s.Close()
	is, err := s.API.Sys().HealthWithContext(ctx)
	if err != nil || is.Sealed || !is.Initialized {
		return ""
	}
	return is.ClusterID
}

// textRefused is the exact answer to a login with what Vault does not know, or OpenBao.
const textRefused = "invalid role or secret ID"

func isRefused(err error) bool {
	a := vaultapi.Answered(err)
	return a != nil && a.Status == http.StatusBadRequest && a.Text == textRefused
}

func codeOf(err error) string {
	if a := vaultapi.Answered(err); a != nil && a.Status == http.StatusForbidden {
		return codeLimit
	}
	return ""
}

// reasonOf says why nothing is known, and holds no value: of an answer, its status alone.
func reasonOf(err error) string {
	a := vaultapi.Answered(err)
	switch {
	case a == nil:
		return remote.Cause(err)
	case a.Status == http.StatusForbidden:
		return "it answers Forbidden: after too many refused logins a role is locked for a while"
	case a.Status == http.StatusServiceUnavailable:
		return "it answers Service Unavailable: is it sealed?"
	case http.StatusText(a.Status) == "":
		return "it answers with a status that has no name"
	}
	return "it answers " + http.StatusText(a.Status)
}
