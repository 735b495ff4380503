package cli_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// inActions lets the shop's password be a secret of Actions.
func (s *shop) inActions(place string) *githubfake.Server {
	s.t.Helper()
	gh := githubfake.Start(s.t, githubfake.Options{})
	app := gh.AddApp("keyturn", map[string]string{"secrets": "write", "environments": "write"})
	text := fmt.Sprintf(`version: 1
journal: file:%s
github: {app: {id: %d, key: {from-env: KEYTURN_APP_KEY}}}
actions-secrets: {repository: %s%s}
credentials:
  %s:
    postgres:
      admin: postgres://keyturn_%[5]s@%[6]s/%[5]s
      admin-password: {from-env: KEYTURN_PG_PASSWORD}
      ca: %[7]s
      role: %[5]s
    secrets: {password: ORDERS_DB_PASSWORD, username: ORDERS_DB_USER}
    accept-gap: true
    minimum-age: 0s
    overlap: 1s
`, s.journal, app.ID, gh.FullName(), place, s.name, s.pg.Addr(), s.pg.CAFile())
	s.must(os.WriteFile(s.config, []byte(text), 0o600))
	s.env = append(s.env, "GITHUB_API_URL="+gh.URL, "KEYTURN_APP_KEY="+string(app.Key().Reveal()), hooks.AtOnce+"=1")
	s.secrets = append(s.secrets, "ghs_", "eyJhbGciOi")
	return gh
}

// job logs in as a job would, with what the secrets hold.
func (s *shop) job(gh *githubfake.Server, kind string) error {
	s.t.Helper()
	password, _ := gh.Secret(gh.FullName(), kind, "ORDERS_DB_PASSWORD")
	user, _ := gh.Secret(gh.FullName(), kind, "ORDERS_DB_USER")
	s.secrets = append(s.secrets, password)
	config, err := pgx.ParseConfig("postgres://" + s.pg.Addr() + "/" + s.name + "?sslmode=verify-full&sslrootcert=" + s.pg.CAFile())
	s.must(err)
	config.User, config.Password = user, password
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		_ = conn.Close(ctx)
	}
	return err
}

// TestActionsSecrets rotates a login whose password is a secret of an environment,
// twice: what the secret holds works after every phase.
func TestActionsSecrets(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	gh := s.inActions(", environment: prod")
	gh.SetEnvironment("prod", githubfake.Environment{})
	const kind = "environment prod"
	if r := s.run("adopt", s.name); r.code != 3 || !strings.Contains(r.stderr, "cannot be read") {
		t.Errorf("adopt: exit %d\n%s", r.code, r.stderr)
	}
	s.ok("doctor")
	for version := 1; version <= 2; version++ {
		out := s.ok("plan", s.name)
		for _, want := range []string{"overwrite ORDERS_DB_PASSWORD, ORDERS_DB_USER, then arm", "no way back", "write-only"} {
			if !strings.Contains(out, want) {
				t.Errorf("the plan says nothing of %q:\n%s", want, out)
			}
		}
		before, _ := gh.Secret(gh.FullName(), kind, "ORDERS_DB_PASSWORD")
		s.ok("prepare", s.name)
		s.ok("validate", s.name)
		if after, _ := gh.Secret(gh.FullName(), kind, "ORDERS_DB_PASSWORD"); after != before {
			t.Errorf("the secret was overwritten before the cutover")
		}
		s.ok("cutover", s.name)
		s.must(s.job(gh, kind))
		if r := s.run("rollback", "--reason", "drill", s.name); r.code != 3 {
			t.Errorf("rollback: exit %d, want 3\n%s%s", r.code, r.stdout, r.stderr)
		}
		time.Sleep(time.Second)
		s.ok("cleanup", s.name)
		s.must(s.job(gh, kind))
	}
	if n := gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are left alive", n)
	}
	b, err := os.ReadFile(s.journal)
	s.must(err)
	s.clean(string(b))
	s.ok("audit", "verify")
}

// TestActionsSecretsCrash kills keyturn around the overwriting. Whoever goes on leaves a
// secret that works.
func TestActionsSecretsCrash(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"before effect: cutover overwrite", "after effect: cutover overwrite", "after record: cutover overwrite done"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t))
			gh := s.inActions("")
			s.ok("rotate", "--wait", s.name)
			s.killed(point, "rotate", "--wait", s.name)
			s.goOn()
			s.must(s.job(gh, "actions"))
		})
	}
}

// TestActionsSecretsDeployKey keeps a deploy key in a secret. A kill between its arming
// and the record of it leaves no second key behind.
func TestActionsSecretsDeployKey(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"after record: cutover draft done", "after effect: cutover overwrite"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			m := newMill(t)
			text, err := os.ReadFile(m.config)
			m.must(err)
			config := strings.Replace(string(text), "directory: {path: "+m.root+"}", "actions-secrets: {repository: "+m.gh.FullName()+"}", 1)
			config = strings.Replace(config, "    services:\n      mill: {path: {/run/secrets/git_key: key}}\n", "    secrets: {key: GIT_KEY}\n    accept-gap: true\n", 1)
			m.must(os.WriteFile(m.config, []byte(config), 0o600))
			m.app.Permissions["secrets"] = "write"
			m.ok("rotate", "--wait", m.name)
			m.killed(point, "rotate", "--wait", m.name)
			m.goOn()
			keys := m.gh.DeployKeys()
			key, _ := m.gh.Secret(m.gh.FullName(), "actions", "GIT_KEY")
			if len(keys) != 1 || !m.lets(key) {
				t.Errorf("GitHub has the keys %+v, and the secret's is let in: %t", keys, m.lets(key))
			}
		})
	}
}
