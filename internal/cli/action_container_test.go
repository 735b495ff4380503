package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

const actionImage = "keyturn-stack:action"

var (
	actionBuilt sync.Once
	errAction   error
)

// buildAction makes the image of the action as make image does.
func (k *stack) buildAction() {
	k.t.Helper()
	actionBuilt.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "make", "-s", "image", "IMAGE="+actionImage, "KEYTURN_VERSION=v9.8.7")
		cmd.Dir, cmd.Env = top, append(os.Environ(), "DOCKER_HOST="+k.engine.Host(), "DOCKER_BUILDKIT=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			errAction = fmt.Errorf("make image: %w\n%s", err, out)
		}
	})
	k.must(errAction)
}

// docker runs the docker command against the engine of the tests.
func (k *stack) docker(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + k.t.TempDir(), "DOCKER_HOST=" + k.engine.Host()}
	return cmd
}

// A job is what a runner makes for one job: folders of its own, and an
// environment.
type job struct {
	*stack
	dir string
	env map[string]string
}

// newJob returns a job with a checkout of its own, which holds the configuration.
func (k *stack) newJob() *job {
	k.t.Helper()
	j := &job{stack: k, dir: k.t.TempDir(), env: map[string]string{
		"GITHUB_ACTIONS": "true", "CI": "true", "HOME": "/github/home", "GITHUB_WORKSPACE": "/github/workspace",
		"GITHUB_OUTPUT": "/github/file_commands/output", "GITHUB_STEP_SUMMARY": "/github/file_commands/summary",
		"GITHUB_ENV": "/github/file_commands/env", "GITHUB_STATE": "/github/file_commands/state", "GITHUB_PATH": "/github/file_commands/path",
		"GITHUB_ACTOR": "octocat", "GITHUB_RUN_ID": "4242", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_SHA": strings.Repeat("a", 40),
		"GITHUB_REPOSITORY": "acme/shop", "GITHUB_SERVER_URL": "https://github.com", "KEYTURN_PG_PASSWORD": adminPassword,
	}}
	for _, folder := range []string{"workspace/.github", "home", "workflow", "file_commands", "runner_temp"} {
		k.must(os.MkdirAll(filepath.Join(j.dir, folder), 0o755))
	}
	for _, file := range []string{"output", "summary", "env", "state", "path"} {
		k.must(os.WriteFile(filepath.Join(j.dir, "file_commands", file), nil, 0o644))
	}
	text, err := os.ReadFile(k.config)
	k.must(err)
	ca, err := os.ReadFile(k.pg.CAFile())
	k.must(err)
	here := strings.NewReplacer(k.engine.Host(), "unix:///var/run/docker.sock", probeImage, actionImage, k.pg.CAFile(), "db-ca.pem").Replace(string(text))
	k.must(os.WriteFile(filepath.Join(j.dir, "workspace/.github/keyturn.yml"), []byte(here), 0o644))
	k.must(os.WriteFile(filepath.Join(j.dir, "workspace/db-ca.pem"), ca, 0o644))
	return j
}

// flags are those of the runner (ContainerActionHandler.cs, DockerCommandManager.cs);
// values travel in the environment of the docker command.
func (j *job) flags(name string, inputs map[string]string) (flags, env []string) {
	flags = []string{"run", "--name", name, "--label", "f0c0de", "--workdir", "/github/workspace", "--rm"}
	for variable, value := range j.env {
		flags, env = append(flags, "-e", variable), append(env, variable+"="+value)
	}
	for input, value := range inputs {
		variable := "INPUT_" + strings.ToUpper(input)
		flags, env = append(flags, "-e", variable), append(env, variable+"="+value)
	}
	socket := strings.TrimPrefix(j.engine.Host(), "unix://")
	for _, mount := range []string{socket + ":/var/run/docker.sock", j.dir + "/runner_temp:/github/runner_temp", j.dir + "/home:/github/home",
		j.dir + "/workflow:/github/workflow", j.dir + "/file_commands:/github/file_commands", j.dir + "/workspace:/github/workspace"} {
		flags = append(flags, "-v", mount)
	}
	return flags, env
}

// A step is what a step of a job came to.
type step struct {
	log     string
	code    int
	outputs map[string]string
	summary string
	files   map[string]string // whatever the job's folders hold
}

// mounted is the folder of the journal, which a runner has to be given.
func (k *stack) mountedJournal() []string {
	dir := filepath.Dir(k.journal)
	k.must(os.MkdirAll(dir, 0o700))
	return []string{"--network", "host", "-v", dir + ":" + dir}
}

// run runs the action once, with defaults for inputs that are not given, as the
// runner fills them in. Told, if it is not nil, sees the log as it grows.
func (j *job) run(inputs map[string]string, more []string, told func(name, log string)) step {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	all := map[string]string{}
	for name, in := range manifest(j.t).Inputs {
		all[name] = in.Default
	}
	for name, value := range inputs {
		all[name] = value
	}
	name := fmt.Sprintf("%s_step%d", j.name, serial.Add(1))
	flags, env := j.flags(name, all)
	args := append(append(append(flags, more...), actionImage), manifest(j.t).Runs.Args...)
	cmd := j.docker(ctx, args...)
	cmd.Env = append(cmd.Env, env...)
	log := &growing{name: name, told: told}
	cmd.Stdout, cmd.Stderr = log, log
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		j.t.Fatalf("docker %v: %v", args, exit)
	}
	s := step{log: log.String(), code: cmd.ProcessState.ExitCode(), files: map[string]string{}}
	j.must(filepath.Walk(j.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		s.files[strings.TrimPrefix(path, j.dir+"/")] = string(b)
		return err
	}))
	s.outputs, s.summary = readOutputs(j.t, s.files["file_commands/output"]), s.files["file_commands/summary"]
	for _, file := range []string{"env", "state", "path"} {
		if text := s.files["file_commands/"+file]; text != "" {
			j.t.Errorf("the step wrote to the file %s: %s", file, text)
		}
	}
	return s
}

// growing is a log that is read while it is written.
type growing struct {
	mu   sync.Mutex
	b    bytes.Buffer
	name string
	told func(name, log string)
}

func (g *growing) Write(b []byte) (int, error) {
	g.mu.Lock()
	g.b.Write(b)
	text := g.b.String()
	g.mu.Unlock()
	if g.told != nil {
		g.told(g.name, text)
	}
	return len(b), nil
}

func (g *growing) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

// readOutputs reads a file of outputs: NAME<<DELIMITER, the value, DELIMITER.
func readOutputs(t testing.TB, text string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for rest := text; rest != ""; {
		head, after, _ := strings.Cut(rest, "\n")
		name, delimiter, ok := strings.Cut(head, "<<")
		value, next, ended := strings.Cut(after, "\n"+delimiter+"\n")
		if !ok || !ended {
			t.Fatalf("the outputs do not parse:\n%s", text)
		}
		out[name], rest = value, next
	}
	return out
}

// TestActionInContainers rotates by four jobs, each in a container of its own that
// is run as the runner runs it. They share the journal, the Swarm and the database,
// and nothing else. One of them is killed, and run again.
func TestActionInContainers(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 1h"})
	k.buildAction()
	k.ok("adopt", k.name)
	shared := k.mountedJournal()
	one := map[string]string{"credential": k.name}
	var steps []step
	for _, phase := range []string{"plan", "prepare", "validate", "cutover"} {
		inputs := map[string]string{"command": phase}
		for name, value := range one {
			inputs[name] = value
		}
		if phase == "cutover" {
			inputs["plan"] = steps[0].outputs["hash"]
			killed := k.newJob().run(inputs, shared, k.killAt("cutover  probe"))
			if killed.code != 137 {
				t.Fatalf("the job that was to be killed: exit %d\n%s", killed.code, killed.log)
			}
			steps = append(steps, killed)
			delete(inputs, "plan") // where it stands now is another plan's
		}
		s := k.newJob().run(inputs, shared, nil)
		if s.code != 0 || s.outputs["state"] != "done" || s.outputs["exit"] != "0" {
			t.Fatalf("%s: exit %d, outputs %q\n%s", phase, s.code, s.outputs, s.log)
		}
		steps = append(steps, s)
	}
	last := steps[len(steps)-1]
	if o := last.outputs; o["current"] != "2" || o["previous"] != "1" || o["previous-until"] == "" || o["credentials"] != `["`+k.name+`"]` {
		t.Errorf("outputs of the cutover are %q", o)
	}
	for _, want := range []string{"### keyturn cutover: done\n", "| " + strings.ReplaceAll(k.name, "_", "\\_") + " | v2 | none | v1 until ", "| cutover | done |", "move"} {
		if !strings.Contains(last.summary, want) {
			t.Errorf("the summary of the cutover lacks %q:\n%s", want, last.summary)
		}
	}
	waits := k.newJob().run(map[string]string{"command": "cleanup", "due": "true"}, shared, nil)
	if waits.code != 0 || waits.outputs["state"] != "done" && waits.outputs["state"] != "waiting" {
		t.Errorf("cleanup of what is due: exit %d, outputs %q\n%s", waits.code, waits.outputs, waits.log)
	}
	early := k.newJob().run(map[string]string{"command": "cleanup", "credential": k.name}, shared, nil)
	if early.code != 3 || early.outputs["state"] != "waiting" || early.outputs["for"] == "" || early.outputs["until"] != last.outputs["previous-until"] ||
		!strings.Contains(early.log, "\n::error title=keyturn cleanup::cleanup waits for ") {
		t.Errorf("cleanup too early: exit %d, outputs %q\n%s", early.code, early.outputs, early.log)
	}
	forced := k.newJob().run(map[string]string{"command": "cleanup", "credential": k.name, "force": "the test has no hour"}, shared, nil)
	if forced.code != 0 || forced.outputs["current"] != "2" || forced.outputs["previous"] != "" {
		t.Errorf("cleanup: exit %d, outputs %q\n%s", forced.code, forced.outputs, forced.log)
	}
	k.done(2)
	k.noneFailed()
	k.oneLogin()
	k.ok("audit", "verify")
	k.saysNoValue(append(steps, waits, early, forced))
	journal, err := os.ReadFile(k.journal)
	k.must(err)
	if !strings.Contains(string(journal), "https://github.com/acme/shop/actions/runs/4242") || !strings.Contains(string(journal), "octocat") {
		t.Error("the journal does not name the run and the actor")
	}
}

// saysNoValue looks for the values of the stack in all that steps have left.
// The runner was handed the administrator's; masking says it to the runner once.
func (k *stack) saysNoValue(steps []step) {
	k.t.Helper()
	values := k.values()
	if len(values) == 0 {
		k.t.Error("no value was found where tasks read them")
	}
	for i, s := range steps {
		masks := 0
		var log []string
		for line := range strings.Lines(s.log) {
			if line == "::add-mask::"+adminPassword+"\n" {
				masks++
				continue
			}
			log = append(log, line)
		}
		if masks != 1 {
			k.t.Errorf("step %d masks the administrator's password %d times, want once", i, masks)
		}
		s.files["log"] = strings.Join(log, "")
		for where, text := range s.files {
			for _, v := range append([]string{adminPassword, firstPassword}, values...) {
				if strings.Contains(text, v) {
					k.t.Errorf("a value stands in %s of step %d", where, i)
				}
			}
		}
	}
}

// killAt kills the container of a step when its log has a text.
func (k *stack) killAt(text string) func(name, log string) {
	var once sync.Once
	return func(name, log string) {
		if !strings.Contains(log, text) {
			return
		}
		once.Do(func() {
			if out, err := k.docker(context.Background(), "kill", "-s", "KILL", name).CombinedOutput(); err != nil {
				k.t.Errorf("docker kill: %v: %s", err, out)
			}
		})
	}
}

// TestActionImage holds the image to its size and its start, and the two ways
// to make it to one last stage.
func TestActionImage(t *testing.T) {
	t.Parallel()
	k := &stack{shop: &shop{t: t}, engine: stackEngine(t)}
	k.buildAction()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := k.docker(ctx, "image", "inspect", actionImage).Output()
	k.must(err)
	var images []struct {
		Size   int64
		Config struct{ Entrypoint, Cmd []string }
	}
	k.must(json.Unmarshal(out, &images))
	if images[0].Size > 25e6 || !slices.Equal(images[0].Config.Entrypoint, []string{"/keyturn"}) || len(images[0].Config.Cmd) != 0 {
		t.Errorf("the image is %+v, want less than 25 MB and the program alone", images[0])
	}
	t.Logf("the image has %.1f MB", float64(images[0].Size)/1e6)
	program, err := testserver.BuildGo(ctx, "./cmd/keyturn")
	k.must(err)
	code, err := os.ReadFile(program)
	k.must(err)
	if bytes.Contains(code, []byte("text/template.(*state).evalField")) {
		t.Error("text/template is executed somewhere in the program: the linker keeps every method of every type, for several MB (docs/design/decisions.md)")
	}
	out, err = k.docker(ctx, "run", "--rm", "--network", "none", actionImage, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "keyturn v9.8.7 (go") {
		t.Errorf("docker run version: %v: %s", err, out)
	}
	text := page(t, "Dockerfile")
	stage := text[strings.LastIndex(text, "\nFROM scratch\n")+1:]
	if stage != "FROM scratch\nCOPY --from=build /rootfs /\nENTRYPOINT [\"/keyturn\"]\n" || !strings.Contains(text, "RUN make rootfs ROOTFS=/rootfs") {
		t.Errorf("the last stage is\n%s\nwhich is not what make image is tested to make", stage)
	}
}

// TestActionCancelled cancels a job as the runner does: the container is told by
// SIGINT and has 7.5 seconds; it ends within 5, and the next job goes on.
func TestActionCancelled(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 1h"})
	k.buildAction()
	k.ok("adopt", k.name)
	shared := k.mountedJournal()
	var told sync.Once
	var when time.Time
	s := k.newJob().run(map[string]string{"command": "rotate", "credential": k.name}, shared, func(name, log string) {
		if strings.Contains(log, "validate  probe") {
			told.Do(func() {
				when = time.Now()
				_, _ = k.docker(context.Background(), "kill", "-s", "INT", name).CombinedOutput() // it shows in the exit code
			})
		}
	})
	if took := time.Since(when); s.code != 130 || s.outputs["state"] != "cancelled" || took > 5*time.Second {
		t.Errorf("a job that is cancelled: exit %d after %s, outputs %q\n%s", s.code, took, s.outputs, s.log)
	}
	s = k.newJob().run(map[string]string{"command": "rotate", "credential": k.name}, shared, nil)
	if s.code != 0 || s.outputs["current"] == "1" {
		t.Errorf("the next job: exit %d, outputs %q\n%s", s.code, s.outputs, s.log)
	}
	k.noneFailed()
}

// TestActionJournalWouldBeLost keeps the record from vanishing with a container.
func TestActionJournalWouldBeLost(t *testing.T) {
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 1h"})
	k.buildAction()
	s := k.newJob().run(map[string]string{"command": "adopt", "credential": k.name}, []string{"--network", "host"}, nil)
	if s.code != 2 || !strings.Contains(s.log, "would be in the container, which is gone when it ends%0Ahint: ") {
		t.Errorf("adopt without a folder for the journal: exit %d\n%s", s.code, s.log)
	}
	if _, err := os.Stat(k.journal); err == nil {
		t.Error("there is a journal all the same")
	}
}
