package directory_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/directory"
)

// fakeLogins knows one backend, which accepts version 1 and refuses all others.
func fakeLogins(backend string) rotation.Login {
	if backend != "fake" {
		return nil
	}
	return func(_ context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
		answer := rotation.EndpointResult{Endpoint: "fake://db", Answer: rotation.Dead, Reason: "refused"}
		if string(m["password"].Reveal()) == password(1) && string(m["username"].Reveal()) == user(1) {
			answer = rotation.EndpointResult{Endpoint: "fake://db", Answer: rotation.Alive}
		}
		return rotation.ProbeResult{Endpoints: []rotation.EndpointResult{answer}}.Summarize()
	}
}

func TestProbe(t *testing.T) {
	root := newRoot(t)
	target := newTarget(t, directory.Options{Root: root, Logins: fakeLogins})
	v1, v2 := put(t, target, 1), put(t, target, 2)
	nobody := "4321"
	broken := put(t, target, 3)
	dir := filepath.Join(root, credential, "v3")
	if err := errors.Join(os.Chmod(dir, 0o700), os.Remove(filepath.Join(dir, "password"))); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		v       rotation.Version
		backend string
		from    rotation.Placement
		want    rotation.Answer
		reason  string
	}{
		"accepted":             {v1, "fake", rotation.Placement{}, rotation.Alive, ""},
		"refused":              {v2, "fake", rotation.Placement{}, rotation.Dead, "refused"},
		"no such backend":      {v1, "other", rotation.Placement{}, rotation.Inconclusive, `no login of backend "other"`},
		"a field is missing":   {broken, "fake", rotation.Placement{}, rotation.Inconclusive, "it is not whole: the files of password are missing"},
		"never put":            {version(8), "fake", rotation.Placement{}, rotation.Inconclusive, "it is not whole"},
		"the reader may not":   {v1, "fake", rotation.Placement{Credential: credential, Service: "api", UID: &nobody}, rotation.Inconclusive, `user 4321 of "api" cannot read the file`},
		"nothing of that name": {rotation.Version{Credential: "absent", Number: 1}, "fake", rotation.Placement{}, rotation.Inconclusive, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			got := target.Probe(t.Context(), c.v, rotation.ProbeSpec{Backend: c.backend}, c.from)
			if got.Answer != c.want || !strings.Contains(got.Reason, c.reason) || got.From != "this machine, "+root {
				t.Errorf("Probe = %+v, want %q with reason %q", got, c.want, c.reason)
			}
		})
	}
}

// TestProbeWipes: the values live no longer than the login.
func TestProbeWipes(t *testing.T) {
	var kept rotation.Material
	target := newTarget(t, directory.Options{Root: newRoot(t), Logins: func(string) rotation.Login {
		return func(_ context.Context, _ rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
			kept = m
			return rotation.ProbeResult{Answer: rotation.Alive}
		}
	}})
	target.Probe(t.Context(), put(t, target, 1), rotation.ProbeSpec{Backend: "fake"}, rotation.Placement{})
	if b := kept["password"].Reveal(); len(b) == 0 || strings.Trim(string(b), "\x00") != "" {
		t.Errorf("after the probe the password is %q, want zeroes", b)
	}
}
