package testserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/testserver"
	"github.com/keyturn/keyturn/internal/testserver/child"
)

func TestMain(m *testing.M) { os.Exit(testserver.Main(m)) }

// traces lists what is left of a server: its folder, processes that name any of
// the words, mounts, interfaces, control groups, records.
func traces(t *testing.T, dir string, words ...string) []string {
	t.Helper()
	words = append(words, dir)
	var left []string
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		left = append(left, "folder "+dir)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(lines, "/proc/self/mounts") {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, word := range words {
			if strings.Contains(string(data), word) {
				left = append(left, file+": "+strings.ReplaceAll(string(data), "\x00", " "))
			}
		}
	}
	for _, word := range words {
		for _, pattern := range []string{"/sys/class/net/" + word, "/sys/fs/cgroup/*" + word, "/sys/fs/cgroup/*/*" + word} {
			found, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, found...)
		}
	}
	return left
}

// asOwner makes of this test binary the process that a test kills; its value is
// the path of the load application.
const asOwner = "KEYTURN_TEST_OWNER"

// TestOwner is no test: it is the process that the next tests kill. It starts
// servers and a child, one server is paused, one has a container that runs, and
// it says what there is.
func TestOwner(t *testing.T) {
	program := os.Getenv(asOwner)
	if program == "" {
		t.Skip("only for the tests that kill it")
	}
	fmt.Println("DIR", os.TempDir())
	if err := os.WriteFile(filepath.Join(t.TempDir(), "password"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", fmt.Sprintf("300.%d", os.Getpid()))
	if err := child.Start(sleep); err != nil {
		t.Fatal(err)
	}
	fmt.Println("WORD", sleep.Args[1])
	pg, err := testserver.StartPostgres(context.Background(), testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("DIR", pg.Dir())
	if err := pg.Pause(); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		ownEngine(t, program)
		server, err := testserver.StartSSHD(context.Background(), testserver.SSHDOptions{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("DIR", server.Dir())
	}
	fmt.Println("READY")
	time.Sleep(time.Minute)
}

// ownEngine starts an engine with a container that runs.
func ownEngine(t *testing.T, program string) {
	ctx := context.Background()
	e, err := testserver.StartEngine(ctx, testserver.EngineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("DIR", e.Dir())
	fmt.Println("WORD", bridgeOf(t, e))
	const tag = "owned:test"
	if _, err := e.BuildScratch(ctx, tag, map[string]string{"/loginload": program}, testserver.ImageConfig{Entrypoint: []string{"/loginload"}}); err != nil {
		t.Fatal(err)
	}
	one := uint64(1)
	service, err := e.CreateService(ctx, swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: "owned"},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: tag, Env: []string{"POSTGRES_USER=x", "POSTGRES_PASSWORD_FILE=/none"}},
			Networks: []swarm.NetworkAttachmentConfig{{Target: testserver.HostNetwork}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.WaitTasks(ctx, service, swarm.TaskStateRunning, 1); err != nil {
		t.Fatal(err)
	}
}

// An owned is what one TestOwner has started.
type owned struct {
	dirs, words []string
}

// left lists what is still there of it.
func (o owned) left(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, dir := range o.dirs {
		left = append(left, traces(t, dir, o.words...)...)
	}
	return left
}

// mustGo fails the test unless all of it goes away soon.
func (o owned) mustGo(t *testing.T, when string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for len(o.left(t)) > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if left := o.left(t); len(left) > 0 {
		t.Errorf("%s there is left: %q", when, left)
	}
}

func TestNothingIsLeftAfterAKill(t *testing.T) {
	program := ownerProgram(t)
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		owner, o := startOwner(t, program)
		kill(t, owner, s)
		o.mustGo(t, fmt.Sprintf("after %v of the owner", s))
	}
}

// TestReap kills the guards, too: the next start of a server cleans up.
func TestReap(t *testing.T) {
	program := ownerProgram(t)
	// Records of its own: no other process may do what this test is about.
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	owner, o := startOwner(t, program)
	records, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "keyturn", "guards", "*.json"))
	if err != nil || len(records) < len(o.dirs) {
		t.Fatalf("records = %q, %v, want one for each of %q", records, err, o.dirs)
	}
	if err := testserver.Reap(); err != nil || len(o.left(t)) < len(o.dirs) {
		t.Errorf("Reap() while all is in use = %v, left %q, want nothing touched", err, o.left(t))
	}
	for _, file := range records {
		killGuard(t, file)
	}
	if err := testserver.Reap(); err != nil || len(o.left(t)) < len(o.dirs) {
		t.Errorf("Reap() while the owner lives = %v, left %q, want nothing touched", err, o.left(t))
	}
	kill(t, owner, syscall.SIGKILL)
	for _, dir := range o.dirs {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("a folder after the guards' end: %v, want it there: else this test shows nothing", err)
		}
	}
	nonsense := filepath.Join(filepath.Dir(records[0]), "a-nonsense.json") // the first in order hinders no other
	if err := os.WriteFile(nonsense, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	testserver.NewPostgres(t, testserver.PostgresOptions{})
	o.mustGo(t, "after the next start of a server")
	if err := testserver.Reap(); err == nil || !strings.Contains(err.Error(), nonsense) {
		t.Errorf("Reap() with a record that is none = %v, want it named", err)
	}
}

// ownerProgram is the load application, if servers can be started here.
func ownerProgram(t *testing.T) string {
	t.Helper()
	probe, err := testserver.StartPostgres(t.Context(), testserver.PostgresOptions{})
	testserver.Require(t, err)
	if err := probe.Remove(); err != nil {
		t.Fatal(err)
	}
	program, err := testserver.BuildGo(t.Context(), "./internal/testserver/loginload")
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// startOwner runs TestOwner in a process of its own and returns it with what it
// has started.
func startOwner(t *testing.T, program string) (*exec.Cmd, owned) {
	t.Helper()
	owner := exec.Command(os.Args[0], "-test.run=^TestOwner$", "-test.v")
	owner.Env = append(os.Environ(), asOwner+"="+program)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(owner); err != nil {
		t.Fatal(err)
	}
	var o owned
	said := ""
	lines := bufio.NewScanner(out)
	ready := false
	for !ready && lines.Scan() {
		said += lines.Text() + "\n"
		if dir, ok := strings.CutPrefix(lines.Text(), "DIR "); ok {
			o.dirs = append(o.dirs, dir)
		}
		if word, ok := strings.CutPrefix(lines.Text(), "WORD "); ok {
			o.words = append(o.words, word)
		}
		ready = lines.Text() == "READY"
	}
	if !ready {
		_ = owner.Wait()
		t.Fatalf("the owner did not start its servers; it said:\n%s", said)
	}
	for _, word := range o.words {
		if len(traces(t, "/no/such/folder", word)) == 0 {
			t.Errorf("no trace of %q while it runs: nothing would be seen of it afterwards", word)
		}
	}
	return owner, o
}

// kill ends the process with the signal.
func kill(t *testing.T, cmd *exec.Cmd, s syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its status is the signal
}

// killGuard ends the guard of a record, and waits for that.
func killGuard(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Guard struct{ Pid int }
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d", r.Guard.Pid)
	if line, err := os.ReadFile(proc + "/cmdline"); err != nil || !strings.Contains(string(line), "keyturn-guard-") {
		t.Fatalf("process %d of %q is no guard: %q, %v", r.Guard.Pid, file, line, err)
	}
	if err := syscall.Kill(r.Guard.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		stat, err := os.ReadFile(proc + "/stat")
		if _, after, _ := strings.Cut(string(stat), ") "); err != nil || strings.HasPrefix(after, "Z") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
