package directory_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/directory"
)

// program writes a shell script and returns its path.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "restart")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func restarting(t *testing.T, root string, r directory.Restart, credentials ...string) *directory.Target {
	t.Helper()
	o := directory.Options{Root: root, Restart: map[string]directory.Restart{}}
	for _, c := range append(credentials, credential) {
		o.Restart[c] = r
	}
	return newTarget(t, o)
}

// TestRestart: the command runs after the link moved, once per move, and not
// where nothing moved.
func TestRestart(t *testing.T) {
	root, log := newRoot(t), filepath.Join(t.TempDir(), "log")
	path := program(t, `cat "$1/current/username" >>"$2"; echo >>"$2"`)
	target := restarting(t, root, directory.Restart{Argv: []string{path, filepath.Join(root, credential), log}}, "mail")
	v1 := put(t, target, 1)
	mail, err := target.Put(t.Context(), rotation.Version{Credential: "mail", Number: 1}, rotation.Material{"token": secret.FromString("canary")})
	if err != nil {
		t.Fatal(err)
	}
	shifts := []rotation.Shift{shift(v1), shift(mail)}
	for range 2 {
		if _, err := target.Move(t.Context(), shifts); err != nil {
			t.Fatal(err)
		}
	}
	r := move(t, target, shift(put(t, target, 2), v1))
	if got := readFile(t, log); got != "orders_1\norders_2\n" {
		t.Errorf("the command ran with %q, want once for both credentials, and once more", got)
	}
	if s := r.Services[0]; s.Restarts != 1 || s.Unhealthy != "" {
		t.Errorf("Move = %+v, want one restart", s)
	}
	if slices.Contains(names(t, root, credential), ".restart-due") {
		t.Error("the note that a restart is due was left")
	}
}

// TestRestartIsMadeUpFor: a process that is killed between the link and the
// restart leaves the application on the old version; the next call restarts it.
func TestRestartIsMadeUpFor(t *testing.T) {
	root, log := newRoot(t), filepath.Join(t.TempDir(), "log")
	target := restarting(t, root, directory.Restart{Argv: []string{program(t, `echo ran >>"$1"`), log}})
	v1 := put(t, target, 1)
	ctx, cancel := context.WithCancel(t.Context())
	target.At(func(point string) {
		if point == "renamed current" {
			cancel()
		}
	})
	_, err := target.Move(ctx, []rotation.Shift{shift(v1)})
	wantError(t, err, rotation.Unknown, "restarting the readers")
	if _, err := os.Stat(log); err == nil {
		t.Fatal("the command ran although the context had ended")
	}
	if r := move(t, target, shift(v1)); r.Services[0].Updated || r.Services[0].Restarts != 1 {
		t.Errorf("Move again = %+v, want a restart and no update", r)
	}
	move(t, target, shift(v1))
	if got := readFile(t, log); got != "ran\n" {
		t.Errorf("the command ran %q, want once", got)
	}
}

// TestRestartIsConfiguredNoMore: a note that one is due goes with it.
func TestRestartIsConfiguredNoMore(t *testing.T) {
	root := newRoot(t)
	target := restarting(t, root, directory.Restart{Argv: []string{program(t, "exit 3")}})
	v1 := put(t, target, 1)
	if _, err := target.Move(t.Context(), []rotation.Shift{shift(v1)}); !errors.Is(err, rotation.ErrUnhealthy) {
		t.Fatalf("Move = %v, want ErrUnhealthy", err)
	}
	move(t, newTarget(t, directory.Options{Root: root}), shift(v1))
	if slices.Contains(names(t, root, credential), ".restart-due") {
		t.Error("the note that a restart is due was left")
	}
}

// TestRestartByARelativePath: it would be looked for here when it is checked,
// and in / when it is run.
func TestRestartByARelativePath(t *testing.T) {
	for argv0, ok := range map[string]bool{"./restart": false, "bin/restart": false, "/bin/restart": true, "restart": true} {
		_, err := directory.New(directory.Options{Root: newRoot(t), Restart: map[string]directory.Restart{credential: {Argv: []string{argv0, "now"}}}})
		if (err == nil) != ok {
			t.Errorf("New with the restart command %q = %v", argv0, err)
		}
		if !ok {
			wantError(t, err, rotation.Invalid, "relative path")
		}
	}
}

func TestRestartFails(t *testing.T) {
	for want, r := range map[string]directory.Restart{
		"exit status 3":      {Argv: []string{program(t, `cat "$1"/*/current/password; cat "$1"/*/current/password >&2; exit 3`), ""}},
		"killed after 200ms": {Argv: []string{program(t, "sleep 60 & wait")}, Timeout: 200 * time.Millisecond},
		"no such file":       {Argv: []string{"/absent/program", "canary-argument"}},
	} {
		root := newRoot(t)
		if len(r.Argv) > 1 && r.Argv[1] == "" {
			r.Argv[1] = root
		}
		target := restarting(t, root, r)
		report, err := target.Move(t.Context(), []rotation.Shift{shift(put(t, target, 1))})
		wantError(t, err, rotation.Failed, want)
		if !errors.Is(err, rotation.ErrUnhealthy) || rotation.HintOf(err) == "" {
			t.Errorf("Move = %v, want ErrUnhealthy with a hint", err)
		}
		if got := report.Services[0].Unhealthy; !strings.Contains(got, want) || strings.Contains(got, "canary") {
			t.Errorf("the report says %q, want %q and no value", got, want)
		}
		if !slices.Contains(names(t, root, credential), ".restart-due") {
			t.Errorf("%s: the restart is not noted as due", want)
		}
	}
}

// TestRestartOutlivesTheWatching: the end of the context ends the wait, not the
// command (a service manager must not be cut off half-way).
func TestRestartOutlivesTheWatching(t *testing.T) {
	root := newRoot(t)
	begun, done := filepath.Join(t.TempDir(), "begun"), filepath.Join(t.TempDir(), "done")
	target := restarting(t, root, directory.Restart{Argv: []string{program(t, `touch "$1"; sleep 3; touch "$2"`), begun, done}})
	v1 := put(t, target, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(begun); err == nil {
				cancel()
			}
		}
	}()
	_, err := target.Move(ctx, []rotation.Shift{shift(v1)})
	wantError(t, err, rotation.Unknown, "watching the command")
	if _, err := os.Stat(done); err == nil {
		t.Error("Move waited for the command")
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(done); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the command was cut off")
		}
	}
}

// TestRestartEnvironment: the command inherits what it needs to find things,
// and nothing that may hold a secret (hard problem 24).
func TestRestartEnvironment(t *testing.T) {
	root, log := newRoot(t), filepath.Join(t.TempDir(), "log")
	target := newTarget(t, directory.Options{Root: root,
		Restart: map[string]directory.Restart{credential: {Argv: []string{program(t, `tr '\0' '\n' </proc/self/environ >"$1"`), log}}},
		Getenv: func(name string) string {
			return map[string]string{"PATH": os.Getenv("PATH"), "TZ": "UTC", "KEYTURN_PG_PASSWORD": "canary-admin"}[name]
		}})
	t.Setenv("KEYTURN_PG_PASSWORD", "canary-admin")
	move(t, target, shift(put(t, target, 1)))
	got := readFile(t, log)
	if !strings.Contains(got, "TZ=UTC\n") || strings.Contains(got, "canary") || strings.Contains(got, "KEYTURN") {
		t.Errorf("the command's environment is %q", got)
	}
}
