package cli_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/testserver/oidcfake"
)

// TestAllow lets a phase be done by whom GitHub says that it is, and by nobody else.
func TestAllow(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), "allow: {cutover: {by: [alice], environments: [prod], workflows: [.github/workflows/cutover.yml], verified: true}}")
	s.ok("adopt", s.name)
	s.ok("prepare", s.name)
	s.ok("validate", s.name)
	s.fails(3, []string{"is not allowed", "outside of GitHub Actions"}, "cutover", s.name)
	s.env = append(s.env, "GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=acme/orders", "GITHUB_RUN_ID=77", "GITHUB_RUN_ATTEMPT=1", "GITHUB_ACTOR=alice",
		"GITHUB_WORKFLOW_REF=acme/orders/.github/workflows/cutover.yml@refs/heads/main", "GITHUB_EVENT_NAME=workflow_dispatch")
	s.fails(3, []string{"has not signed who does it", "id-token: write"}, "cutover", s.name)
	claims := map[string]any{"actor": "alice", "repository": "acme/orders", "run_id": "77", "environment": "prod",
		"job_workflow_ref": "acme/orders/.github/workflows/cutover.yml@refs/heads/main"}
	issuer := oidcfake.Start(t, "canary-id-91", claims)
	s.env = append(s.env, "GITHUB_SERVER_URL="+issuer.URL, "ACTIONS_ID_TOKEN_REQUEST_URL="+issuer.Request(), "ACTIONS_ID_TOKEN_REQUEST_TOKEN=canary-id-91")
	s.secrets = append(s.secrets, "canary-id-91", "eyJ")
	for claim, c := range map[string]struct{ value, word string }{
		"actor": {"mallory", "mallory is not one of alice"}, "environment": {"staging", "staging"}, "run_id": {"78", "of another run"},
		"job_workflow_ref": {"acme/orders/.github/workflows/x.yml@refs/heads/main", "x.yml"}, "repository": {"acme/web", "of another run"},
	} {
		was := claims[claim]
		claims[claim] = c.value
		s.fails(3, []string{c.word}, "cutover", s.name)
		claims[claim] = was
	}
	s.ok("cutover", s.name)
	s.recorded(`"actor":{"name":"alice","verified":true}`)
}
