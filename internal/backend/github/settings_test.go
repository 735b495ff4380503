package github_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

func TestSection(t *testing.T) {
	got, err := github.Section(rotationtest.Decoder("deploy-key: {repository: acme/orders}\napp: {id: 7, key: {from-env: KEY}}"))
	if err != nil {
		t.Fatal(err)
	}
	s := got.(github.Settings)
	owner, name := s.Repository()
	every, overlap := s.Pace()
	if s.DeployKey.ReadOnly == nil || !*s.DeployKey.ReadOnly || owner != "acme" || name != "orders" || s.App.Key.Env != "KEY" {
		t.Errorf("Section = %+v", s)
	}
	if every != 30*24*time.Hour || overlap != 2*time.Hour {
		t.Errorf("Pace = %s, %s, want 30 days and 2 hours", every, overlap)
	}
}

// TestSectionFaults shows that every fault has its key, and that none repeats what
// may be a secret.
func TestSectionFaults(t *testing.T) {
	const canary = "Xk7canary9"
	with := func(lines string) string { return "deploy-key: {repository: acme/orders, " + lines + "}" }
	token := func(repositories, permissions string) string {
		return "installation-token: {repositories: " + repositories + ", permissions: " + permissions + "}"
	}
	for _, tt := range []struct{ yaml, key, text string }{
		{"{}", "", "nothing says what is rotated"},
		{"deploy-key: {}", "deploy-key.repository", "the repository is missing"},
		{"deploy-key: {repository: " + canary + "}", "deploy-key.repository", "want OWNER/NAME"},
		{"deploy-key: {repository: 'acme/" + canary + "/x'}", "deploy-key.repository", "want OWNER/NAME"},
		{with("title: 'x\"" + canary + "'"), "deploy-key.title", "the title has other characters, or too many"},
		{with("title: " + strings.Repeat("x", 101)), "deploy-key.title", "the title has other characters, or too many"},
		{with("adopt: 'SHA256:" + canary + "'"), "deploy-key.adopt", "this is no fingerprint of a key"},
		{with("probe: ['https://" + canary + "/acme/orders.git']"), "deploy-key.probe.0", "this is no URL that begins with ssh:// and names a host"},
		{with("probe: ['ssh://git@github.com/a/b.git', 'ssh://git:" + canary + "@github.com/acme/orders.git']"), "deploy-key.probe.1", "the URL has a password, a query or a fragment"},
		{with("probe: ['ssh://github.com/acme/orders.git']"), "deploy-key.probe.0", "the URL names no user: on GitHub it is git"},
		{with("probe: [\"ssh://git@github.com/acme/o'rders.git\"]"), "deploy-key.probe.0", "the URL names no repository"},
		{with("probe: ['ssh://git@ghe.acme.io/acme/orders.git']"), "deploy-key.known-hosts", "the keys of the hosts under probe are not known"},
		{with("read-only: true") + "\napp: {id: 7, key: {from-env: A}}\ntoken: {from-env: B}", "token", "GitHub is asked by an App or with a token, not both"},
		{with("read-only: true") + "\napp: {key: {from-env: A}}", "app.id", "there is no number of the App"},
		{with("read-only: true") + "\napp: {id: 7}", "app.key", "there is no key of the App"},
		{with("read-only: true") + "\nwebhook: {repository: acme/x, url: 'https://h/x'}", "webhook", "a credential is one thing"},
		{with("read-only: true") + "\n" + token("[acme/x]", "{contents: read}"), "installation-token", "a credential is one thing"},
		{token("[]", "{contents: read}"), "installation-token.repositories", "no repository is named"},
		{token("[acme/x, other/y]", "{contents: read}"), "installation-token.repositories.1", "a token is for repositories of one owner"},
		{token("[acme/x, "+canary+"]", "{contents: read}"), "installation-token.repositories.1", "want OWNER/NAME"},
		{token("[acme/x]", "{}"), "installation-token.permissions", "nothing says what the token may do"},
		{token("[acme/x]", "{contents: "+canary+"}"), "installation-token.permissions", "want names of permissions, each with read, write or admin"},
		{token("[acme/x]", "{contents: read}") + "\ntoken: {from-env: A}", "token", "a token cannot make tokens: that takes an App"},
		{"webhook: {repository: acme/x}", "webhook.url", "the URL is missing"},
		{"webhook: {url: 'https://h/x'}", "webhook.repository", "the repository is missing"},
		{"webhook: {repository: " + canary + ", url: 'https://h/x'}", "webhook.repository", "want OWNER/NAME"},
		{"webhook: {repository: acme/x, organization: acme, url: 'https://h/x'}", "webhook.organization", "a webhook is of a repository or of an organisation, not both"},
		{"webhook: {organization: a_" + canary + ", url: 'https://h/x'}", "webhook.organization", "want the name of an organisation"},
		{"webhook: {repository: acme/x, url: 'ftp://" + canary + "/x'}", "webhook.url", "this is no URL that begins with https:// and names a host"},
		{"webhook: {repository: acme/x, url: 'https://u:" + canary + "@h/x'}", "webhook.url", "the URL has a user, a password or a fragment"},
		{"webhook: {repository: acme/x, url: 'https://h/x?keyturn=" + canary + "'}", "webhook.url", "the parameter keyturn of the URL is Keyturn's own"},
		{"webhook: {repository: acme/x, url: 'https://h/x', probe: ['https://h/x', '" + canary + "']}", "webhook.probe.1", "this is no URL that begins with https:// and names a host"},
	} {
		_, err := github.Section(rotationtest.Decoder(tt.yaml))
		f, ok := errors.AsType[*rotation.Fault](err)
		if !ok || f.Key() != tt.key || f.Error() != tt.text || f.Hint() == "" {
			t.Errorf("Section(%q) = %v, want %q: %q", tt.yaml, err, tt.key, tt.text)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", err, f), canary) {
			t.Errorf("Section repeats a value: %v", err)
		}
	}
	if _, err := github.Section(rotationtest.Decoder(with("readonly: true"))); err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("Section takes a key that it does not know: %v", err)
	}
}

// TestKnownHosts reads the forms that a file of known hosts has.
func TestKnownHosts(t *testing.T) {
	f := newAPI(t)
	line, other := f.line(), f.line()
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"by name", "# ours\n\nghe.acme.io,10.0.0.7 " + line + "\n", true},
		{"another host", "ghe.acme.com " + line + "\n", false},
		{"another port", "[ghe.acme.io]:2222 " + line + "\n", false},
		{"hashed", hashed("ghe.acme.io") + " " + line + "\n", true},
		{"another host, hashed", hashed("ghe.acme.com") + " " + line + "\n", false},
		{"revoked", "ghe.acme.io " + line + "\n@revoked * " + line + "\n", false},
		{"another one is revoked", "ghe.acme.io " + line + "\n@revoked * " + other + "\n", true},
		{"an authority", "@cert-authority ghe.acme.io " + line + "\n", false},
		{"a pattern", "*.acme.io " + line + "\n", false},
		{"no line", "ghe.acme.io\n", false},
		{"empty", "", false},
	} {
		f.settings.DeployKey.Probe, f.settings.DeployKey.KnownHosts = []string{"ssh://git@ghe.acme.io/acme/orders.git"}, "known_hosts"
		f.options.KnownHosts = []byte(tt.text)
		_, err := github.New(f.settings, f.options)
		if tt.ok != (err == nil) || err != nil && rotation.ClassOf(err) != rotation.Invalid {
			t.Errorf("%s: New = %v, want success: %t", tt.name, err, tt.ok)
		}
	}
}
