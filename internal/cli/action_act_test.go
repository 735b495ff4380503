package cli_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/keyturn/keyturn/internal/testserver"
)

const runnerImage = "keyturn-stack:runner"

// buildRunner makes what jobs run in: a shell and the usual commands.
func (k *stack) buildRunner(ctx context.Context) {
	k.t.Helper()
	busybox, err := exec.LookPath("busybox")
	k.must(err)
	b, err := os.ReadFile(busybox)
	k.must(err)
	dir := k.t.TempDir()
	k.must(os.WriteFile(filepath.Join(dir, "busybox"), b, 0o755))
	k.must(os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(`FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN ["/bin/mkdir", "-p", "-m", "1777", "/tmp", "/root"]
ENV PATH=/bin
`), 0o644))
	if out, err := k.docker(ctx, "build", "-q", "-t", runnerImage, dir).CombinedOutput(); err != nil {
		k.t.Fatalf("the runner's image: %v\n%s", err, out)
	}
}

// buildAct makes the runner of workflows, and what jobs run in.
func (k *stack) buildAct() (program string) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	program, err := testserver.BuildTool(ctx, "tools/act", "github.com/nektos/act")
	k.must(err)
	k.buildRunner(ctx)
	return program
}

// The workflow of the test: a job for each phase, on any runner, and what one says
// to the next.
const actWorkflow = `on: workflow_dispatch
env:
  KEYTURN_PG_PASSWORD: ${{ secrets.KEYTURN_PG_PASSWORD }}
jobs:
%s`

const actJob = `  %[1]s:
    needs: [%[2]s]
    runs-on: ubuntu-latest
    outputs: {state: "${{ steps.it.outputs.state }}", pending: "${{ steps.it.outputs.pending }}"}
    steps:
      - uses: actions/checkout@v4
      - id: it
        uses: ./action
        with: {command: %[1]s, credential: %[3]s%[4]s}
      - run: 'echo "said: %[1]s ${{ steps.it.outputs.state }} v${{ steps.it.outputs.current }} after ${{ join(needs.*.outputs.state) }}"'
        shell: sh
`

// repository writes a checkout with the workflow, the action and the configuration.
func (k *stack) repository() string {
	k.t.Helper()
	dir := filepath.Join(k.newJob().dir, "workspace")
	jobs, before := "", ""
	for _, phase := range []string{"prepare", "validate", "cutover", "cleanup"} {
		more := ""
		if phase == "cleanup" {
			more = `, force: the test has no hour`
		}
		jobs += fmt.Sprintf(actJob, phase, before, k.name, more)
		before = phase
	}
	for path, text := range map[string]string{
		".github/workflows/rotate.yml": fmt.Sprintf(actWorkflow, jobs),
		"action/action.yml":            page(k.t, "action.yml"),
		"action/Dockerfile":            "FROM " + actionImage + "\n",
	} {
		k.must(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755))
		k.must(os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644))
	}
	return dir
}

// act runs the workflow of a repository, and returns what it says. Told sees the log as
// it grows.
func (k *stack) act(program, repository string, told func(log string)) (string, error) {
	k.t.Helper()
	return k.actOn(actRun{program: program, repository: repository, event: "workflow_dispatch", workflow: "rotate.yml",
		secrets: "KEYTURN_PG_PASSWORD=" + adminPassword + "\n", options: k.mountedJournal(), told: told})
}

// An actRun is one run of a workflow.
type actRun struct {
	program, repository string
	event, workflow     string   // its name, and the file of the workflow
	secrets             string   // lines of NAME=VALUE
	options             []string // of the job's container
	more                []string // arguments
	told                func(log string)
}

func (k *stack) actOn(r actRun) (string, error) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	home := k.t.TempDir()
	k.must(os.WriteFile(filepath.Join(home, "secrets"), []byte(r.secrets), 0o600))
	cmd := exec.CommandContext(ctx, r.program, append([]string{r.event, "-W", ".github/workflows/" + r.workflow,
		"--pull=false", "--no-cache-server", "--action-offline-mode", "--rm", "--secret-file", filepath.Join(home, "secrets"),
		"--container-daemon-socket", k.engine.Host(), "--container-options", strings.Join(r.options, " ")}, r.more...)...)
	for _, label := range []string{"ubuntu-latest", "self-hosted", "swarm-manager"} {
		cmd.Args = append(cmd.Args, "-P", label+"="+runnerImage)
	}
	cmd.Dir = r.repository
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "DOCKER_HOST=" + k.engine.Host()}
	log := &growing{told: func(_, log string) {
		if r.told != nil {
			r.told(log)
		}
	}}
	cmd.Stdout, cmd.Stderr = log, log
	err := cmd.Run()
	return log.String(), err
}

// killAction kills the container that the action runs in.
func (k *stack) killAction(credential string) {
	ctx := context.Background()
	list, err := k.client.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		k.t.Error(err)
	}
	for _, c := range list {
		info, err := k.client.ContainerInspect(ctx, c.ID)
		if err != nil || !strings.Contains(strings.Join(info.Config.Env, "\n"), "INPUT_CREDENTIAL="+credential) {
			continue
		}
		if err := k.client.ContainerKill(ctx, c.ID, "KILL"); err != nil {
			k.t.Errorf("killing the action: %v", err)
		}
	}
}

// TestActionInWorkflow runs the four phases as jobs of one workflow, each in
// containers of its own; what they share is the folder of the journal, the Swarm and
// the database. The action is killed in one of them, and the workflow run again.
func TestActionInWorkflow(t *testing.T) {
	journey(t)
	t.Parallel()
	k := newStack(t, servers.postgres.Get(t), []string{"overlap: 1h"})
	k.buildAction()
	program := k.buildAct()
	k.ok("adopt", k.name)
	repository := k.repository()
	var once sync.Once
	killed, err := k.act(program, repository, func(log string) {
		if strings.Contains(log, "cutover  probe") {
			once.Do(func() { k.killAction(k.name) })
		}
	})
	if err == nil || !strings.Contains(killed, "said: validate done v1") || strings.Contains(killed, "said: cutover") {
		t.Fatalf("the workflow whose third job is killed: %v\n%s", err, killed)
	}
	whole, err := k.act(program, repository, nil)
	if err != nil {
		t.Fatalf("the workflow: %v\n%s", err, whole)
	}
	for _, want := range []string{"said: prepare done v1 after \n", "said: validate done v1 after done\n", "said: cutover done v2 after done\n", "said: cleanup done v2 after done\n"} {
		if !strings.Contains(whole, want) {
			t.Errorf("the workflow does not say %q:\n%s", want, whole)
		}
	}
	k.done(2)
	k.noneFailed()
	k.oneLogin()
	k.ok("audit", "verify")
	for _, value := range append(k.values(), adminPassword, firstPassword) {
		for _, log := range []string{killed, whole} {
			if strings.Contains(regexp.MustCompile(`(?m)^.*::add-mask::.*$`).ReplaceAllString(log, ""), value) {
				t.Error("a value stands in the log of the workflow")
			}
		}
	}
}
