package cli_test

import (
	"bufio"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

const proxyPage = "docs/socket-proxy.md"

// A socketProxy is the proxy of the page, in front of the engine of the tests.
type socketProxy struct {
	socket string
	mu     sync.Mutex
	calls  map[string]int // what was let through, by method and path
	denied []string
}

// call returns a call as the page writes it.
func call(line string) string {
	method, path, _ := strings.Cut(line, " ")
	path = regexp.MustCompile(`^/v[0-9.]+`).ReplaceAllString(path, "")
	words := strings.Split(strings.Trim(path, "/"), "/")
	if len(words) > 1 && words[1] != "create" {
		last := words[len(words)-1]
		path = "/" + words[0] + "/ID"
		if slices.Contains([]string{"json", "logs", "update", "exec", "start"}, last) {
			path += "/" + last
		}
	}
	return method + " " + path
}

func (k *stack) startSocketProxy() *socketProxy {
	k.t.Helper()
	dir := k.t.TempDir()
	p := &socketProxy{socket: filepath.Join(dir, "docker.sock"), calls: map[string]int{}}
	text := blocks(page(k.t, proxyPage), "nginx")[0]
	for old, now := range map[string]string{"/run/keyturn/docker.sock": p.socket, "/run/keyturn-proxy.pid": filepath.Join(dir, "pid"),
		"/var/run/docker.sock": strings.TrimPrefix(k.engine.Host(), "unix://")} {
		if !strings.Contains(text, old) {
			k.t.Fatalf("the configuration of the page has no %q", old)
		}
		text = strings.Replace(text, old, now, 1)
	}
	file := filepath.Join(dir, "nginx.conf")
	k.must(os.WriteFile(file, []byte(text), 0o600))
	cmd := exec.Command("nginx", "-c", file, "-g", "daemon off;")
	out, err := cmd.StdoutPipe()
	k.must(err)
	var said strings.Builder
	cmd.Stderr = &said
	k.must(child.Start(cmd))
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.note(lines.Text())
		}
	})
	k.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // its workers end with it
		reading.Wait()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("unix", p.socket)
		if err == nil {
			k.must(conn.Close())
			return p
		}
		if time.Now().After(end) {
			k.t.Fatalf("the proxy does not answer: %v\n%s", err, said.String())
		}
	}
}

// note takes a line of the proxy's log: method, path and status.
func (p *socketProxy) note(line string) {
	words := strings.Fields(line)
	if len(words) != 3 || !strings.HasPrefix(words[1], "/") {
		return // of a connection without a request
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if words[2] == "403" {
		p.denied = append(p.denied, words[0]+" "+words[1])
		return
	}
	p.calls[call(words[0]+" "+words[1])]++
}

// seen returns the calls, once they are in the log: those that end last are too.
func (p *socketProxy) seen() (calls map[string]int, denied []string) {
	time.Sleep(500 * time.Millisecond) // the log is written behind the answer
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.calls), slices.Clone(p.denied)
}

// TestSocketProxy does all that the commands do through the proxy of the page, and
// counts: the calls are those of the page, each of them, and none is refused. What
// is not in the page is refused by the proxy, and Keyturn says so.
func TestSocketProxy(t *testing.T) {
	journey(t)
	t.Parallel()
	o := newOverlaid(t, nil)
	k := o.newStack(t)
	p := k.startSocketProxy()
	edit(k.engine.Host(), "unix://"+p.socket)(k)
	k.ok("adopt", k.name)
	k.ok("plan", k.name)
	k.ok("rotate", "--wait", k.name)
	k.ok("rotate", k.name)
	k.ok("rollback", "--reason", "the test says so", k.name)
	if out := k.run("doctor", k.name); out.code != 0 {
		t.Errorf("doctor: exit %d\n%s", out.code, out.stdout)
	}
	if r := k.run("--config", filepath.Join(t.TempDir(), "new.yml"), "init", "--dry-run", "--host", "unix://"+p.socket, "--from-service", k.service,
		"--journal", k.journal+"2", "--image", probeImage); r.code != 0 {
		t.Errorf("init: exit %d\n%s", r.code, r.stderr)
	}
	k.noneFailed()
	calls, denied := p.seen()
	if len(denied) > 0 {
		t.Errorf("the proxy refused %q", denied)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]+)` \\| (.*) \\|$").FindAllStringSubmatch(page(t, proxyPage), -1) {
		listed[m[1]] = true
		if calls[m[1]] == 0 && !strings.HasSuffix(m[2], "now and then") {
			t.Errorf("nobody makes the call %s", m[1])
		}
	}
	for c, n := range calls {
		if !listed[c] {
			t.Errorf("the page does not list %s, made %d times", c, n)
		}
	}
	for _, args := range [][]string{{"ps"}, {"images"}, {"volume", "ls"}, {"run", loadImage}, {"swarm", "leave"}, {"rm", "x"}, {"stop", "x"}} {
		cmd := exec.Command("docker", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "DOCKER_HOST=unix://" + p.socket}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "403") {
			t.Errorf("docker %s through the proxy: %v\n%s", args[0], err, out)
		}
	}
}
