package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver"
)

// A stumble is one on the first steps: what is said stands in
// testdata/first-steps, and nothing is changed.
type stumble struct {
	name    string
	command string // NAME is the stack
	code    int
	bend    func(w *workspace) // the files; they are put back afterwards
}

// inFile replaces a part of a file of the workspace.
func inFile(file, old, new string) func(w *workspace) {
	return func(w *workspace) {
		w.t.Helper()
		named := strings.NewReplacer("NAME", w.name)
		path := filepath.Join(w.dir, named.Replace(file))
		b, err := os.ReadFile(path)
		w.must(err)
		text := strings.ReplaceAll(string(b), named.Replace(old), named.Replace(new))
		if text == string(b) {
			w.t.Fatalf("%s has no %q", path, named.Replace(old))
		}
		w.must(os.WriteFile(path, []byte(text), 0o644))
	}
}

const theStackFile, theConfig = "deploy/NAME.yml", ".github/keyturn.yml"

func initStumbles() []stumble {
	const init = "keyturn --config new.yml init "
	return []stumble{
		{name: "no service named", command: "keyturn --config new.yml init", code: 2},
		{name: "no such service", command: init + "--from-service NAME_web", code: 2},
		{name: "a service without secrets", command: init + "--from-service NAME_bare", code: 2},
		{name: "a secret that is no database's", command: init + "--from-service NAME_proxy", code: 2},
		{name: "nothing known of the database", command: init + "--from-service NAME_report", code: 2},
		{name: "the configuration exists", command: "keyturn init --from-service NAME_api", code: 2},
		{name: "the workflow exists", command: init + "--from-service NAME_api --workflow=" + theStackFile, code: 2},
		{name: "no stack file", command: init + "--from-service NAME_api --stack-file deploy/other.yml", code: 2},
		{name: "a stack file that does not parse", command: init + "--from-service NAME_api --stack-file " + theStackFile, code: 2,
			bend: inFile(theStackFile, "    secrets: [db_password]", "    secrets: [db_password")},
		{name: "a stack file without the service", command: init + "--from-service NAME_api --stack-file " + theStackFile, code: 2,
			bend: inFile(theStackFile, "  api:\n", "  web:\n")},
		{name: "a password in the URL", command: init + "--from-service NAME_api --admin postgres://keyturn:" + adminPassword + "@db/orders", code: 2},
		{name: "no engine", command: init + "--from-service NAME_api --host unix:///nowhere/docker.sock", code: 4},
		{name: "a host that is none", command: init + "--from-service NAME_api --host nowhere", code: 2},
		{name: "another way than the two", command: init + "--from-service NAME_api --through ssh", code: 2},
		{name: "no ssh key", command: "SWARM_SSH_KEY= " + init + "--from-service NAME_api --host ssh://deploy@swarm.acme.io", code: 2},
		{name: "tcp without certificates", command: "DOCKER_CERT_PATH= " + init + "--from-service NAME_api --host tcp://swarm.acme.io", code: 2},
		{name: "a folder that cannot be made", command: "keyturn --config " + theStackFile + "/new.yml init --from-service NAME_api", code: 2},
	}
}

func doctorStumbles() []stumble {
	const doctor = "keyturn doctor NAME-db"
	return []stumble{
		{name: "unknown credential of doctor", command: "keyturn doctor orders", code: 2},
		{name: "all is well", command: doctor, code: 0},
		{name: "warnings that count", command: doctor + " --strict", code: 6},
		{name: "a secret from the environment", command: doctor, code: 6, bend: inFile(theStackFile, fromFile, "    environment: DB_PASSWORD\n")},
		{name: "an interpolated name", command: doctor, code: 6, bend: inFile(theStackFile, fromFile, "    external: true\n    name: NAME_db_${RELEASE}\n")},
		{name: "another secret in the stack file", command: doctor, code: 6, bend: inFile(theStackFile, fromFile, "    external: true\n    name: NAME_db_old\n")},
		{name: "the stack file is gone", command: doctor, code: 6, bend: func(w *workspace) { w.must(os.Remove(w.file())) }},
		{name: "the stack file does not parse", command: doctor, code: 6, bend: inFile(theStackFile, "x-app: &app", "x-app: {&app")},
		{name: "the stack file has no such service", command: doctor, code: 6, bend: inFile(theStackFile, "  worker:\n", "  jobs:\n")},
		{name: "the login comes from the shell", command: doctor, code: 6, bend: inFile(theStackFile, "      - POSTGRES_USER=NAME\n", "      - POSTGRES_USER\n")},
		{name: "an undeclared user", command: doctor, code: 6, bend: inFile(theConfig, "      worker:", "      jobs:")},
		{name: "another way to the database", command: doctor + " --strict", code: 6, bend: inFile(theConfig, "probe: [postgres://127.0.0.1:", "probe: [postgres://localhost:")},
		{name: "no engine for doctor", command: doctor, code: 6, bend: inFile(theConfig, "docker.sock", "nowhere.sock")},
		{name: "no password", command: "KEYTURN_PG_PASSWORD= " + doctor, code: 6},
		{name: "clocks that differ", command: hooks.ClockAhead + "=2m " + doctor + " --strict", code: 6},
		{name: "no authority", command: doctor, code: 6, bend: inFile(theConfig, "deploy/db-ca.pem", "deploy/no-ca.pem")},
		{name: "the journal in a checkout", command: doctor, code: 6, bend: func(w *workspace) {
			w.must(os.Mkdir(filepath.Join(w.dir, ".git"), 0o755))
			inFile(theConfig, "journal: file:", "journal: file:"+w.dir)(w)
		}},
		{name: "the image of the probes is nowhere", command: doctor, code: 6, bend: inFile(theConfig, probeImage, "keyturn-stack:nowhere")},
	}
}

// TestFirstStepsErrors meets what can go wrong on the first steps.
func TestFirstStepsErrors(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, servers.postgres.Get(t), fromFile)
	w.more("bare", func(c *swarm.ContainerSpec) { c.Secrets = nil })
	w.more("proxy", func(c *swarm.ContainerSpec) { c.Secrets, c.Env = w.mounted("tls_key"), nil })
	w.more("report", func(c *swarm.ContainerSpec) { c.Secrets, c.Env = w.mounted("reports_db_url"), nil })
	w.takeOver()
	all := append(initStumbles(), doctorStumbles()...)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			here := *w
			here.stack = &stack{}
			*here.stack = *w.stack
			here.shop = w.at(t)
			here.stumbles(s)
		})
	}
	files, err := filepath.Glob("testdata/first-steps/*.txt")
	w.must(err)
	for _, file := range files {
		if !slices.ContainsFunc(all, func(s stumble) bool { return s.golden() == file }) {
			t.Errorf("%s belongs to nothing that is tried", file)
		}
	}
}

// TestFirstStepsAsJSON reads what doctor, plan and init say as JSON, and what init
// writes beside the configuration; and it holds docs/output.md to what all commands print.
func TestFirstStepsAsJSON(t *testing.T) {
	journey(t)
	t.Parallel()
	w := newWorkspace(t, servers.postgres.Get(t), fromFile)
	w.takeOver()
	var examined struct {
		Findings                 []struct{ Credential, Check, Level, Text, Hint string }
		Problems, Warnings, Exit int
	}
	w.read("keyturn doctor -o json", &examined)
	checks := map[string]bool{}
	for _, f := range examined.Findings {
		checks[f.Credential+" "+f.Check] = true
		checks["TLS"] = checks["TLS"] || strings.HasSuffix(f.Text, ", primary, TLS 1.3")
	}
	name := w.name + "-db "
	for _, want := range []string{" journal", " swarm", name + "record", name + "postgres", name + "services", name + "endpoints", name + "leftovers", name + "stack file", "TLS"} {
		if !checks[want] {
			t.Errorf("doctor says nothing of %q: %+v", want, examined)
		}
	}
	if examined.Problems != 0 || examined.Exit != 0 || examined.Warnings == 0 {
		t.Errorf("doctor counts %+v", examined)
	}
	var planned struct {
		Files []struct {
			File  string
			Stale []struct{ Text, Hint string }
			Diff  string
		} `json:"stack_files"`
	}
	w.read("keyturn plan -o json", &planned)
	if len(planned.Files) != 1 || len(planned.Files[0].Stale) != 3 || !strings.Contains(planned.Files[0].Diff, "+    name: "+w.secret+"_v2\n") {
		t.Errorf("the plan says of stack files %+v", planned.Files)
	}
	var begun struct {
		Wrote, Next   []string
		Configuration string
		Credentials   []struct{ Name, Host string }
	}
	w.read("keyturn --config sub/new.yml init -o json --workflow --from-service "+w.name+"_api --image "+probeImage, &begun)
	if !slices.Equal(begun.Wrote, []string{"sub/new.yml", ".github/workflows/keyturn.yml"}) || len(begun.Credentials) != 1 || begun.Credentials[0].Host != "127.0.0.1" {
		t.Errorf("init says %+v", begun)
	}
	if got := w.contents(); got[filepath.Join(w.dir, "sub/new.yml")] != begun.Configuration ||
		got[filepath.Join(w.dir, ".github/workflows/keyturn.yml")] != page(t, "workflows-examples/rotate.yml") {
		t.Errorf("init wrote other files than it says: %+v", got)
	}
	w.outputPage()
}

// TestInitElsewhere writes configurations of engines that are reached over ssh and
// over TLS, with which doctor reaches them.
func TestInitElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, servers.postgres.Get(t), fromFile)
	line, private, err := testserver.NewSSHKey()
	w.must(err)
	sshd := testserver.NewSSHD(t, testserver.SSHDOptions{Authorized: []string{line}, Socket: w.socket()})
	w.hand("SWARM_SSH_KEY", string(private))
	certs := filepath.Join(w.dir, "certs")
	w.must(os.Mkdir(certs, 0o700))
	cert, key, err := w.engine.Authority().Issue(testserver.Certificate{Client: true})
	w.must(err)
	for name, data := range map[string][]byte{"ca.pem": w.engine.Authority().PEM, "cert.pem": cert, "key.pem": key, "id": private,
		"known_hosts": []byte(sshd.KnownHosts())} {
		w.must(os.WriteFile(filepath.Join(certs, name), data, 0o600))
	}
	for _, how := range []string{
		"--host " + sshd.URL("") + " --known-hosts certs/known_hosts",
		"--host " + sshd.URL("") + " --known-hosts certs/known_hosts --ssh-key certs/id",
		"--host " + w.engine.TLSHost() + " --tls certs",
	} {
		w.sh("keyturn init --force --from-service " + w.name + "_api --image " + probeImage + " --journal " + w.journal + " " + how)
		out, code := w.try("keyturn doctor")
		if code != 6 || !regexp.MustCompile(`(?m)^ *ok +swarm +.*manager`).MatchString(out) {
			t.Errorf("after init %s, doctor says (exit %d):\n%s", how, code, out)
		}
	}
}

// read runs a command that prints JSON.
func (w *workspace) read(command string, into any) {
	w.t.Helper()
	out := w.sh(command + " 2>/dev/null")
	if err := json.Unmarshal([]byte(out), into); err != nil {
		w.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func (s stumble) golden() string {
	return filepath.Join("testdata", "first-steps", strings.NewReplacer(" ", "-", "'", "").Replace(s.name)+".txt")
}

// mounted makes a secret and returns how it is mounted.
func (w *workspace) mounted(name string) []*swarm.SecretReference {
	w.t.Helper()
	ref, err := w.engine.CreateSecret(context.Background(), w.name+"_"+name, []byte(firstPassword))
	w.must(err)
	ref.File.Name = name
	return []*swarm.SecretReference{ref}
}

// more makes another service of the stack, without a task.
func (w *workspace) more(name string, change func(*swarm.ContainerSpec)) {
	w.t.Helper()
	spec := w.inspect().Spec
	spec.Name = w.name + "_" + name
	replicas(0)(&spec)
	c := *spec.TaskTemplate.ContainerSpec
	change(&c)
	spec.TaskTemplate.ContainerSpec = &c
	_, err := w.engine.CreateService(context.Background(), spec)
	w.must(err)
}

// contents returns every file of the workspace.
func (w *workspace) contents() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	w.must(filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	}))
	return all
}

func (w *workspace) stumbles(s stumble) {
	w.t.Helper()
	was := w.contents()
	defer func() {
		w.must(os.RemoveAll(filepath.Join(w.dir, ".git")))
		for path, text := range was {
			w.must(os.WriteFile(path, []byte(text), 0o644))
		}
	}()
	if s.bend != nil {
		s.bend(w)
	}
	files, objects, logins, lines := w.contents(), w.objects(), w.canLogIn(), w.written()
	out, code := w.try(strings.ReplaceAll(s.command, "NAME", w.name))
	if diff := cmp.Diff(files, w.contents()); diff != "" {
		w.t.Errorf("files were changed (-before +after):\n%s", diff)
	}
	if !slices.Equal(objects, w.objects()) || !slices.Equal(logins, w.canLogIn()) || lines != w.written() {
		w.t.Error("something was changed in the Swarm, the database or the journal")
	}
	if code != s.code {
		w.t.Errorf("exit %d, want %d\n%s", code, s.code, out)
	}
	if s.code != 0 && !strings.Contains(out, "hint: ") {
		w.t.Errorf("there is no hint:\n%s", out)
	}
	got := fmt.Sprintf("$ %s\n%sexit %d\n", strings.ReplaceAll(s.command, adminPassword, "…"), w.plain(out), code)
	if *update {
		w.must(os.MkdirAll(filepath.Dir(s.golden()), 0o755))
		w.must(os.WriteFile(s.golden(), []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(s.golden())
	w.must(err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", s.golden(), diff)
	}
}

// plain replaces what differs from run to run, and leaves out what is well.
func (w *workspace) plain(out string) string {
	out = strings.NewReplacer(w.journal, "/var/lib/keyturn/journal.jsonl", w.dir, "/srv/checkout", w.engine.Host(), "unix:///var/run/docker.sock",
		strings.TrimPrefix(w.engine.Host(), "unix://"), "/var/run/docker.sock", strings.TrimSuffix(w.engine.Host(), "docker.sock"), "unix:///var/run/",
		fmt.Sprintf("localhost:%d", w.pg.Port()), "localhost:5432", w.pg.Addr(), "127.0.0.1:5432", w.name, "NAME").Replace(out)
	var kept strings.Builder
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "ok ") {
			kept.WriteString(line)
		}
	}
	text := kept.String()
	for _, r := range [][2]string{
		{`(?m)services: .*$`, "services: …"}, // of every test that shares the Swarm
		{`ends 20\d\d-\d\d-\d\d( \d\d:\d\d UTC)?`, "ends DAY"},
		{` {3,}`, "   "},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}
