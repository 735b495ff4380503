package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/githubfake"
)

// newLender makes a configuration whose App may read two repositories.
func newLender(t *testing.T) (*shop, *githubfake.Server) {
	t.Helper()
	dir := t.TempDir()
	s := &shop{t: t, config: filepath.Join(dir, "keyturn.yml"), journal: filepath.Join(dir, "journal.jsonl")}
	gh := githubfake.Start(t, githubfake.Options{})
	gh.AddRepo("octo/other")
	app := gh.AddApp("keyturn", map[string]string{"contents": "write"})
	s.must(os.WriteFile(s.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
github: {app: {id: %d, key: {from-env: KEYTURN_APP_KEY}}}
credentials:
  x:
    postgres: {admin: "postgres://a@127.0.0.1:1/x", admin-password: {from-env: KEYTURN_PG_PASSWORD}, role: x}
    services: {api: {path: {/run/secrets/x: password}}}
`, s.journal, dir, app.ID)), 0o600))
	s.env = append(os.Environ(), "CI=", "GITHUB_API_URL="+gh.URL, "KEYTURN_APP_KEY="+string(app.Key().Reveal()), hooks.AtOnce+"=1")
	s.secrets = []string{"ghs_", "eyJhbGciOi", strings.Split(string(app.Key().Reveal()), "\n")[3]}
	return s, gh
}

// TestWithToken runs commands that read the token's file: it does what was asked for and
// no more, is nowhere else, and is revoked however the command ends.
func TestWithToken(t *testing.T) {
	t.Parallel()
	s, gh := newLender(t)
	flags := []string{"with-token", "--repository", gh.FullName(), "--permission", "contents=read", "--"}
	with := func(script string) result { return s.run(append(flags, "sh", "-c", script, "sh", "{}")...) }
	if r := with(`test "$(head -c 4 "$1")" = ghs_ && test "$(stat -Lc %a "$1")" = 400 && ! env | grep -q -e ghs_ -e KEYTURN_APP_KEY && echo seen`); r.code != 0 || r.stdout != "seen\n" {
		t.Errorf("the command does not see what it should: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := with(`echo more >> "$1"`); r.code == 0 {
		t.Error("the command can change the file")
	}
	ask := `python3 -c '
import sys, urllib.request, urllib.error
for repo in sys.argv[2:]:
    try: print(urllib.request.urlopen(urllib.request.Request("` + gh.URL + `/repos/%s/commits/main" % repo, headers={"Authorization": "Bearer " + open(sys.argv[1]).read()})).status)
    except urllib.error.HTTPError as e: print(e.code)
' "$1" ` + gh.FullName() + ` octo/other`
	if r := with(ask); r.code != 0 || r.stdout != "200\n404\n" {
		t.Errorf("with the token GitHub answers: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := with("exit 7"); r.code != 7 {
		t.Errorf("a command that ends with 7: exit %d", r.code)
	}
	if r := s.run(append(flags, "/nowhere/program", "{}")...); r.code != 2 {
		t.Errorf("a program that is not there: exit %d\n%s", r.code, r.stderr)
	}
	for _, tt := range []struct {
		args []string
		word string
	}{
		{[]string{"with-token", "--repository", gh.FullName(), "--permission", "contents=read", "--", "sh", "-c", "true"}, "no {} in its arguments"},
		{[]string{"with-token", "--permission", "contents=read", "--", "cat", "{}"}, "no repository"},
		{[]string{"with-token", "--repository", gh.FullName(), "--", "cat", "{}"}, "what the token may do"},
		{[]string{"with-token", "--repository", gh.FullName(), "--repository", "acme/x", "--permission", "contents=read", "--", "cat", "{}"}, "one owner"},
		{[]string{"with-token", "--repository", "x", "--permission", "contents=read", "--", "cat", "{}"}, "OWNER/NAME"},
		{[]string{"with-token", "--repository", gh.FullName(), "--permission", "contents", "--", "cat", "{}"}, "NAME=LEVEL"},
	} {
		if r := s.run(tt.args...); r.code != 2 || !strings.Contains(r.stderr, tt.word) || !strings.Contains(r.stderr, "hint:") {
			t.Errorf("%q: exit %d\n%s", tt.args, r.code, r.stderr)
		}
	}
	if r := s.run("with-token", "--repository", gh.FullName(), "--permission", "issues=write", "--", "cat", "{}"); r.code != 1 || !strings.Contains(r.stderr, "issues: write") {
		t.Errorf("a permission that the App lacks: exit %d\n%s", r.code, r.stderr)
	}
	if n := gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are left alive", n)
	}
}

// TestWithTokenCancelled ends the run: the command is told, and the token revoked.
func TestWithTokenCancelled(t *testing.T) {
	t.Parallel()
	s, gh := newLender(t)
	mark := filepath.Join(t.TempDir(), "told")
	cmd := exec.Command(program(t), "with-token", "--config", s.config, "--repository", gh.FullName(), "--permission", "contents=read", "--",
		"sh", "-c", `trap 'echo told > "$2"; exit 0' TERM; echo ready; while :; do sleep 0.05; done`, "sh", "{}", mark)
	cmd.Env = s.env
	out, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	_, err = out.Read(make([]byte, 6))
	s.must(err)
	if n := gh.LiveTokens(); n != 1 {
		t.Errorf("%d tokens are alive while the command runs", n)
	}
	s.must(cmd.Process.Signal(syscall.SIGTERM))
	err = cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		t.Errorf("the run ended with %v", err)
	}
	if b, err := os.ReadFile(mark); err != nil || string(b) != "told\n" {
		t.Errorf("the command was not told to end: %q, %v", b, err)
	}
	if n := gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are left alive", n)
	}
}

// TestBuildSecretOnGitHub builds an image by BuildKit that needs a token while it is
// built: the token works there, and stands in no argument, no layer and no history.
func TestBuildSecretOnGitHub(t *testing.T) {
	if os.Getenv("KEYTURN_CRASH") != "all" {
		t.Skip("BuildKit is built for it; run it with: make crash")
	}
	t.Parallel()
	s, gh := newLender(t)
	builder := testserver.NewBuildKit(t)
	dir := t.TempDir()
	busybox, err := exec.LookPath("busybox")
	s.must(err)
	b, err := os.ReadFile(busybox)
	s.must(err)
	s.must(os.WriteFile(filepath.Join(dir, "busybox"), b, 0o755))
	s.must(os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(fmt.Sprintf(`FROM scratch AS fetch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "/out", "/tmp"]
RUN --mount=type=secret,id=github_token ["/bin/busybox", "sh", "-c", "{ printf 'GET /repos/%[2]s/commits/main HTTP/1.0\\r\\nAuthorization: Bearer '; /bin/busybox cat /run/secrets/github_token; printf '\\r\\n\\r\\n'; } | /bin/busybox nc %[1]s > /out/commit.json"]
FROM scratch
COPY --from=fetch /out/commit.json /commit.json
`, strings.Replace(strings.TrimPrefix(gh.URL, "http://"), ":", " ", 1), gh.FullName())), 0o644))
	image := filepath.Join(t.TempDir(), "image.tar")
	w := startWitness()
	r := s.run(append([]string{"with-token", "--repository", gh.FullName(), "--permission", "contents=read", "--"},
		builder.Build(dir, image, "--secret", "id=github_token,src={}")...)...)
	if r.code != 0 {
		t.Fatalf("the build: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	close(w.stop)
	w.ended.Wait()
	for args := range w.seen {
		if strings.Contains(args, "ghs_") && strings.Contains(args, "buildctl") {
			t.Error("the token stands in the arguments of a process")
		}
	}
	whole := unpacked(t, image)
	if !strings.Contains(whole, gh.Head("main")) || !strings.Contains(whole, `"history"`) {
		t.Errorf("the image lacks what was fetched with the token, or its history")
	}
	s.clean(whole + r.stdout + r.stderr)
	if n := gh.LiveTokens(); n != 0 {
		t.Errorf("%d tokens are left alive", n)
	}
}

// unpacked is the text of everything in an image, its layers unpacked.
func unpacked(t *testing.T, image string) string {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var text strings.Builder
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if z, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
			if b, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&text, "%s\n%s\n", h.Name, b)
	}
}
