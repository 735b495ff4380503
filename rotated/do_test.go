package rotated_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/rotated"
)

var errLogin = errors.New("password authentication failed")

func refuseAll(context.Context, rotated.Credential) error { return rotated.Refused(errLogin) }

// A server accepts some passwords and keeps who came.
type server struct {
	accepts map[string]bool
	down    bool
	tried   []string
}

func (s *server) login(_ context.Context, c rotated.Credential) error {
	s.tried = append(s.tried, c.Field("password"))
	switch {
	case s.down:
		return io.ErrUnexpectedEOF
	case !s.accepts[c.Field("password")]:
		return rotated.Refused(errLogin)
	}
	return nil
}

func dual(t *testing.T) *rotated.Source {
	return setting{
		env:   map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": "@p", "DB_USER_NEW": "u2", "DB_PASSWORD_FILE_NEW": "@n"},
		files: map[string]string{"p": "p1", "n": "p2"},
	}.source(t, login)
}

// The life of a dual rotation as the application sees it, one login per line.
func TestDoFallsBackAndRemembers(t *testing.T) {
	source := dual(t)
	steps := []struct {
		say    string
		server server
		tried  []string
		fails  error
	}{
		{"both accepted: the current one", server{accepts: map[string]bool{"p1": true, "p2": true}}, []string{"p1"}, nil},
		{"current refused: the next one", server{accepts: map[string]bool{"p2": true}}, []string{"p1", "p2"}, nil},
		{"still refused: the next one first", server{accepts: map[string]bool{"p2": true}}, []string{"p2"}, nil},
		{"the other way round", server{accepts: map[string]bool{"p1": true}}, []string{"p2", "p1"}, nil},
		{"and remembered", server{accepts: map[string]bool{"p1": true, "p2": true}}, []string{"p1"}, nil},
		{"the next one is accepted again", server{accepts: map[string]bool{"p2": true}}, []string{"p1", "p2"}, nil},
		{"and its refusal forgotten", server{accepts: map[string]bool{"p1": true, "p2": true}}, []string{"p2"}, nil},
		{"and back", server{accepts: map[string]bool{"p1": true}}, []string{"p2", "p1"}, nil},
		{"down says nothing about a password", server{down: true}, []string{"p1"}, io.ErrUnexpectedEOF},
		{"nothing accepted: each once", server{}, []string{"p1", "p2"}, rotated.ErrRefused},
		{"back in their order", server{accepts: map[string]bool{"p1": true}}, []string{"p1"}, nil},
	}
	for _, step := range steps {
		err := source.Do(t.Context(), step.server.login)
		if !errors.Is(err, step.fails) {
			t.Errorf("%s: Do = %v, want %v", step.say, err, step.fails)
		}
		if diff := cmp.Diff(step.tried, step.server.tried); diff != "" {
			t.Errorf("%s: passwords tried (-want +got):\n%s", step.say, diff)
		}
	}
}

func TestDoReportsEveryRefusal(t *testing.T) {
	err := dual(t).Do(t.Context(), refuseAll)
	for _, want := range []error{rotated.ErrRefused, errLogin} {
		if !errors.Is(err, want) {
			t.Errorf("Do = %v, want an error that wraps %v", err, want)
		}
	}
	for _, want := range []string{"from DB_PASSWORD_FILE and DB_USER:", "from DB_PASSWORD_FILE_NEW and DB_USER_NEW:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Do = %v, want it to say %q", err, want)
		}
	}
}

// The credential moved between reading it and using it.
func TestDoLooksAgain(t *testing.T) {
	dir := versions(t)
	dir.add(1)
	dir.move(1)
	var tried []string
	err := rotated.Dir(dir.path, "username", "password").Do(t.Context(), func(_ context.Context, c rotated.Credential) error {
		tried = append(tried, c.Field("password"))
		if c.Field("password") == "p1" {
			dir.add(2)
			dir.move(2)
			dir.remove(1)
			return rotated.Refused(errLogin)
		}
		return nil
	})
	if diff := cmp.Diff([]string{"p1", "p2"}, tried); diff != "" || err != nil {
		t.Errorf("Do: %v, passwords tried (-want +got):\n%s", err, diff)
	}
}

func TestDoWithEndlessMovesEnds(t *testing.T) {
	dir := versions(t)
	n := 1
	dir.add(n)
	dir.move(n)
	calls := 0
	err := rotated.Dir(dir.path, "username", "password").Do(t.Context(), func(context.Context, rotated.Credential) error {
		calls++
		n++
		dir.add(n)
		dir.move(n)
		return rotated.Refused(errLogin)
	})
	if !errors.Is(err, rotated.ErrRefused) || calls > 10 {
		t.Errorf("Do = %v after %d logins, want a refusal after a few", err, calls)
	}
}

func TestDoStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := dual(t).Do(ctx, func(context.Context, rotated.Credential) error {
		calls++
		cancel()
		return rotated.Refused(errLogin)
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("Do = %v after %d logins, want context.Canceled after 1", err, calls)
	}
	if _, err := dual(t).Candidates(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Candidates = %v, want context.Canceled", err)
	}
}

func TestDoWithoutCredential(t *testing.T) {
	err := setting{}.source(t, login).Do(t.Context(), func(context.Context, rotated.Credential) error {
		t.Error("login was called without a credential")
		return nil
	})
	if !errors.Is(err, rotated.ErrMissing) || errors.Is(err, rotated.ErrRefused) {
		t.Errorf("Do = %v, want ErrMissing", err)
	}
}

// A refusal belongs to the content: a file that was replaced starts afresh.
func TestRefusalIsForgottenWithTheContent(t *testing.T) {
	dir := t.TempDir()
	current, next := filepath.Join(dir, "p"), filepath.Join(dir, "n")
	write(t, current, "p1")
	write(t, next, "p2")
	env := map[string]string{"DB_USER": "u1", "DB_PASSWORD_FILE": current, "DB_USER_NEW": "u2", "DB_PASSWORD_FILE_NEW": next}
	source := rotated.EnvFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, login)
	only2 := server{accepts: map[string]bool{"p2": true}}
	must(t, source.Do(t.Context(), only2.login))
	write(t, current, "p3")
	list, err := source.Candidates(t.Context())
	if diff := cmp.Diff([]string{"u1/p3", "u2/p2"}, pairs(list)); diff != "" || err != nil {
		t.Errorf("Candidates: %v (-want +got):\n%s", err, diff)
	}
}

func TestRefused(t *testing.T) {
	if rotated.Refused(nil) != nil {
		t.Error("Refused(nil) is an error")
	}
	err := rotated.Refused(errLogin)
	if !errors.Is(err, rotated.ErrRefused) || !errors.Is(err, errLogin) || err.Error() != errLogin.Error() {
		t.Errorf("Refused = %q, want the same text, wrapped", err)
	}
}
