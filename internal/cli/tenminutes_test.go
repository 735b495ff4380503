package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// TestTenMinutes runs the commands of docs/first-steps.md in their order, for a
// stack that docker deployed from a file with a plain secret, and those of the
// rotation a second time. Under load no login fails, and the stack that is
// deployed from the edited file is the one that runs.
func TestTenMinutes(t *testing.T) {
	journey(t)
	t.Parallel()
	newWorkspace(t, servers.postgres.Get(t), fromFile).tenMinutes()
}

// TestTenMinutesElsewhere does the same from a network namespace that has nothing but
// the port of an ssh server, for a database that only an overlay network reaches.
func TestTenMinutesElsewhere(t *testing.T) {
	journey(t)
	t.Parallel()
	o := newOverlaid(t, nil)
	line, private, err := testserver.NewSSHKey()
	k := &stack{shop: &shop{t: t}, engine: stackEngine(t)}
	k.must(err)
	runner := testserver.NewNamespace(t)
	sshd := testserver.NewSSHD(t, testserver.SSHDOptions{Authorized: []string{line}, Socket: k.socket(), Netns: runner})
	w := newWorkspaceAt(t, o.pg, fromFile, site{network: o.name, host: strings.Split(o.pg.Addr(), ":")[0],
		admin: []string{"nsenter", "--net=" + o.netns, "--"}, runner: []string{"nsenter", "--net=" + runner, "--"},
		init: "--through swarm --host " + sshd.URL("") + " --known-hosts known_hosts"})
	w.hand("SWARM_SSH_KEY", string(private))
	w.must(os.WriteFile(filepath.Join(w.dir, "known_hosts"), []byte(sshd.KnownHosts()), 0o644))
	w.tenMinutes()
	w.noRelay()
	text, err := sshd.LogText()
	w.must(err)
	w.clean(text)
	for _, value := range w.values() {
		if strings.Contains(text, value) {
			t.Error("a value stands in the log of the ssh server")
		}
	}
}

func (w *workspace) tenMinutes() {
	t := w.t
	t.Helper()
	steps := blocks(page(t, "docs/first-steps.md"), "sh")
	if len(steps) != 4 {
		t.Fatalf("docs/first-steps.md shows %d blocks of commands, want 4", len(steps))
	}
	if shown := blocks(page(t, "README.md"), "sh"); !slices.Contains(shown, steps[0]) || !slices.Contains(shown, steps[1]) {
		t.Error("README.md shows other commands of the first ten minutes than docs/first-steps.md")
	}
	before := w.running()
	ran := w.follow(steps[0])
	if now := w.running(); !slices.Equal(now, before) {
		t.Errorf("taking it over replaced tasks: %q became %q", before, now)
	}
	for range 2 {
		ran += w.follow(steps[1])
	}
	ran += w.follow(steps[2])
	if ran < 17 {
		t.Errorf("%d commands were run, want at least 17", ran)
	}
	if p := w.status(); p.Current != 3 || p.Previous != 0 || p.Queue != 0 {
		t.Errorf("after two rotations: %+v, want only version 3", p)
	}
	w.unchanged("after two rotations")
	if got := w.objects(); !slices.Contains(got, "secret "+w.secret+"_v3") || slices.Contains(got, "secret "+w.secret) {
		t.Errorf("on the Swarm there are %q", got)
	}
	if logins := w.canLogIn(); len(logins) != 1 {
		t.Errorf("%q can log in, want one", logins)
	}
	b, err := os.ReadFile(w.file())
	w.must(err)
	if text := string(b); strings.Count(text, w.name+"_b") != 2 || !strings.Contains(text, "# of today") || !strings.Contains(text, "name: "+w.secret+"_v3\n") {
		t.Errorf("the stack file is\n%s", text)
	}
	w.ok("audit", "verify")
	w.noneFailed()
}

// follow runs the commands of a block as a reader would, who waits where it says
// so, and returns how many there were.
func (w *workspace) follow(block string) (ran int) {
	w.t.Helper()
	for line := range strings.Lines(block) {
		command, comment, _ := strings.Cut(line, "#")
		command = strings.TrimSpace(strings.ReplaceAll(command, "orders", w.name))
		switch {
		case command == "" || strings.HasPrefix(command, "export "):
			continue
		case strings.HasPrefix(command, "keyturn init"): // what is this machine's own
			command += fmt.Sprintf(" --journal %s --image %s %s", w.journal, probeImage, w.init)
		case strings.HasPrefix(command, "psql"):
			command = w.psql(command)
			setting.Lock() // the script changes roles of the whole cluster
		case strings.HasPrefix(command, "docker stack deploy"):
			w.unchanged("as the page shows it") // its own waiting and comparing
		}
		out, code := w.try(command)
		if strings.Contains(command, "psql") {
			setting.Unlock()
		}
		w.t.Logf("$ %s\n%s", strings.TrimSpace(line), out)
		for end := time.Now().Add(time.Minute); code == 3 && strings.Contains(comment, "when the overlap is over") && time.Now().Before(end); {
			time.Sleep(500 * time.Millisecond)
			out, code = w.try(command)
		}
		if code != 0 {
			w.t.Fatalf("%s: exit %d\n%s", command, code, out)
		}
		ran++
		w.after(command)
	}
	return ran
}

// psql is a command of psql by the superuser.
func (w *workspace) psql(command string) string {
	return fmt.Sprintf("PGHOST=127.0.0.1 PGPORT=%d PGUSER=%s PGPASSWORD=%s %s %s", w.pg.Port(), testserver.AdminUser, w.pg.AdminPassword(),
		strings.Join(w.admin, " "), command)
}

// after does what the page says in words, and makes a test of a day.
func (w *workspace) after(command string) {
	w.t.Helper()
	switch {
	case strings.HasPrefix(command, "keyturn init") && !strings.Contains(command, "--dry-run"):
		b, err := os.ReadFile(w.config)
		w.must(err)
		text := string(b)
		if !strings.Contains(text, "    overlap: 24h ") {
			w.t.Fatalf("the configuration has no overlap:\n%s", text)
		}
		text = strings.ReplaceAll(text, "    overlap: 24h ", "    minimum-age: 0s\n    rollout: {monitor: 1s, health-timeout: 90s}\n    grace: 10m\n    overlap: 1s ")
		w.must(os.WriteFile(w.config, []byte(text), 0o644))
	case strings.Contains(command, "setup.sql") && !strings.Contains(command, "keyturn"):
		w.administrator()
	}
}
