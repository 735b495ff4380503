// Package gitssh is an ssh server that serves bare repositories by git itself, and
// nothing else, to the keys that it is told: what a GitHub does with deploy keys.
package gitssh

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/child"
)

// A Server is Debian's ssh server, whose user has git's own shell.
type Server struct {
	*testserver.SSHD
	t testing.TB
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	if _, err := exec.LookPath("git-shell"); err != nil {
		testserver.Require(t, errors.Join(err, testserver.ErrMissing))
	}
	s := &Server{testserver.NewSSHD(t, testserver.SSHDOptions{}), t}
	s.must(os.Chmod(s.Dir(), 0o755)) // its user is another one
	return s
}

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("serving git by ssh: %v", err)
	}
}

// Repository makes a bare repository with one commit on its branch main, and returns
// its path on the server.
func (s *Server) Repository(name string) string {
	s.t.Helper()
	bare := filepath.Join(s.Dir(), "git", name)
	s.must(os.MkdirAll(bare, 0o755))
	s.git("init", "-q", "--bare", "-b", "main", bare)
	work := s.t.TempDir()
	s.git("init", "-q", "-b", "main", work)
	s.git("-C", work, "-c", "user.name=alice", "-c", "user.email=alice@example.com", "commit", "-q", "--allow-empty", "-m", "The beginning")
	s.git("-C", work, "push", "-q", bare, "main")
	// git serves only what its user owns.
	s.must(filepath.WalkDir(bare, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, testserver.SSHGroup, testserver.SSHGroup))
	}))
	return bare
}

func (s *Server) git(args ...string) {
	s.t.Helper()
	if out, err := child.CombinedOutput(exec.Command("git", args...)); err != nil {
		s.t.Fatalf("git %q: %v: %s", args, err, out)
	}
}

// Serve lets in who has one of the keys, lines of authorized_keys, and nobody else.
func (s *Server) Serve(keys []string) {
	lines := make([]string, len(keys))
	for i, key := range keys {
		lines[i] = `restrict,command="git-shell -c \"$SSH_ORIGINAL_COMMAND\"" ` + key
	}
	if err := s.Authorize(lines); err != nil {
		s.t.Errorf("serving git by ssh: %v", err)
	}
}
