package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/testserver/child"
)

// Credential is the name that Keyturn's configuration gives a stack's login.
func (k *Stack) Credential() string { return k.Name + "-db" }

// Adopt writes a configuration for a stack as it runs, lets a superuser run the
// SQL that "keyturn setup postgres" prints, and takes the stack over. Nothing
// of it restarts a task.
func (k *Stack) Adopt(ctx context.Context) error {
	s := k.scene
	if err := os.MkdirAll(filepath.Join(s.dir, ".github"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, ".github", "keyturn.yml"), []byte(k.Config()), 0o600); err != nil {
		return err
	}
	if err := s.setUp(ctx); err != nil {
		return err
	}
	adopted, err := s.Keyturn(ctx, "adopt", k.Credential())
	return errors.Join(err, adopted.OK())
}

// setUp lets a superuser run the SQL that Keyturn prints for it. It is long,
// so the reader sees how long.
func (s *Scenario) setUp(ctx context.Context) error {
	const file = "setup.sql"
	var setup, said bytes.Buffer
	cmd := s.keyturn(ctx, []string{"setup", "postgres"})
	cmd.Stdout, cmd.Stderr = &setup, &said
	if err := child.Run(cmd); err != nil {
		return fmt.Errorf("printing the set-up SQL: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	if err := os.WriteFile(filepath.Join(s.dir, file), setup.Bytes(), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "\n$ keyturn setup postgres > %s\n    %d lines, for a superuser to review and run once\n", file, bytes.Count(setup.Bytes(), []byte("\n")))
	run, err := s.shell(ctx, "psql -q -v ON_ERROR_STOP=1 -f "+file)
	return errors.Join(err, run.OK())
}

// Config is the configuration for a stack.
func (k *Stack) Config() string {
	s := k.scene
	return fmt.Sprintf(`version: 1
journal: file:%s
swarm: {host: "%s", image: "%s"}
credentials:
  %s:
    postgres:
      admin: postgres://%s@%s/%s
      admin-password: {from-env: %s}
      ca: %s
      role: %s
    stack: {name: %s}
    services:
      api:
        env: {POSTGRES_USER: username}
        file: {POSTGRES_PASSWORD_FILE: password}
    secrets: {password: %s}
    mounts: %s
    overlap: %s
    minimum-age: 0s
    rollout: {parallelism: 1, delay: %s, monitor: %s}
`, s.JournalPath(), s.engine.Host(), keyturnImage, k.Credential(), adminRole, s.postgres.Addr(), database, adminVariable,
		s.postgres.CAFile(), k.Name, k.Name, k.Secret, s.Mounts, config.FormatDuration(s.Overlap),
		config.FormatDuration(s.Delay), config.FormatDuration(s.Monitor))
}

// JournalPath is where Keyturn's journal is kept.
func (s *Scenario) JournalPath() string { return filepath.Join(s.dir, "state", "journal.jsonl") }

// Keyturn runs the built program.
func (s *Scenario) Keyturn(ctx context.Context, args ...string) (Run, error) {
	return s.run(s.keyturn(ctx, args), shown(args))
}

func (s *Scenario) keyturn(ctx context.Context, args []string) *exec.Cmd {
	cmd := s.command(ctx, s.program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "USER=" + os.Getenv("USER"), "CI=true", adminVariable + "=" + s.password}
	return cmd
}

func shown(args []string) string { return "keyturn " + strings.Join(args, " ") }

// KeyturnKilled starts a cutover and kills it with SIGKILL as soon as the first
// task of the stack has moved: in the middle of the update.
func (s *Scenario) KeyturnKilled(ctx context.Context, k *Stack) (Run, error) {
	args := []string{"cutover", k.Credential()}
	before, err := k.mounts(ctx)
	if err != nil {
		return Run{}, err
	}
	cmd := s.keyturn(ctx, args)
	wait, err := s.begin(cmd, shown(args))
	if err != nil {
		return Run{}, err
	}
	moved, err := k.waitMoved(ctx, before)
	killed := cmd.Process.Kill()
	r, waited := wait()
	if err := errors.Join(err, killed, waited); err != nil {
		return r, err
	}
	if r.Code != -1 {
		return r, fmt.Errorf("killing %s: it had ended by itself with status %d", r.Command, r.Code)
	}
	fmt.Fprintf(s.Out, "\n$ kill -9 %d\n    keyturn is gone; %d of %d tasks had moved\n", cmd.Process.Pid, moved, replicas)
	return r, nil
}

// waitMoved waits until a task has moved, and says how many have.
func (k *Stack) waitMoved(ctx context.Context, before string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if n, err := k.movedFrom(ctx, before); err != nil || n > 0 {
			return n, err
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for the first task of %q to move: %w", k.Service(), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
