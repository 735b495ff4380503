package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/scaffold"
	"github.com/keyturn/keyturn/internal/target/swarm"
	examples "github.com/keyturn/keyturn/workflows-examples"
)

// initFlags are what init is told.
type initFlags struct {
	services []string
	options  scaffold.Options
	host     string
	through  string
	reach    reachFlags
	workflow string
	force    bool
	dryRun   bool
}

const defaultWorkflow = ".github/workflows/keyturn.yml"

func (a *app) initCommand() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use: "init --from-service NAME…", Short: "Write a first configuration from what services read now; changes nothing else",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.init(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.services, "from-service", nil, "a `service` whose database secrets are to be rotated; may be given again")
	flags.StringVar(&f.host, "host", "", "the `engine` of a manager: unix://, ssh:// or tcp://; default: $DOCKER_HOST, or unix:///var/run/docker.sock")
	f.reach.add(flags)
	flags.StringVar(&f.options.StackFile, "stack-file", "", "the `file` that the stack is deployed from; default: one that is found here")
	flags.StringVar(&f.options.Admin, "admin", "", "`URL` of the database for Keyturn's administrator; default: what the services' variables say")
	flags.StringVar(&f.through, "through", "direct", "how Keyturn reaches the database: `direct`, or swarm: by a task on the services' networks")
	flags.StringVar(&f.options.CA, "ca", "", "`file` of the authority that signs the database's certificate")
	flags.StringVar(&f.options.Role, "role", "", "the `login` that services use today; default: what their variables say")
	flags.StringVar(&f.options.Image, "image", "", "`image` of the probes: this program, on every node; default: this release's")
	flags.StringVar(&f.options.Journal, "journal", "/var/lib/keyturn/journal.jsonl", "`file` of the record")
	flags.StringVar(&f.workflow, "workflow", "", "write a workflow that rotates what is due, too; its `file` is "+defaultWorkflow+" unless it is named")
	flags.Lookup("workflow").NoOptDefVal = defaultWorkflow
	flags.BoolVar(&f.force, "force", false, "overwrite files that are there")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the configuration and write nothing")
	return cmd
}

// init looks at the services, reading only, and writes a configuration.
func (a *app) init(ctx context.Context, f initFlags) error {
	if len(f.services) == 0 {
		return usagef("name a service that reads a database secret: --from-service orders_api", "init needs --from-service")
	}
	if f.through != "direct" && f.through != "swarm" {
		return usagef("write --through direct or --through swarm", "unknown way to the database: %q", f.through)
	}
	f.options.Through = f.through == "swarm"
	if err := a.free(f); err != nil {
		return err
	}
	engine, err := f.reach.swarm(cmp.Or(f.host, a.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"), a.Getenv)
	if err != nil {
		return err
	}
	services, err := a.deployed(ctx, engine)
	if err != nil {
		return err
	}
	f.options.Swarm = section(engine)
	named, err := pick(services, f.services)
	if err != nil {
		return err
	}
	found, others := scaffold.Guess(services, named)
	if len(found) == 0 {
		return noSecrets(others, named)
	}
	if err := stackFileOf(&f.options, found); err != nil {
		return err
	}
	draft := scaffold.Write(found, others, f.options)
	if len(draft.Missing) > 0 {
		return usagef("say it: "+strings.Join(draft.Missing, " "), "%s: the variables of its services do not say enough of the database", found[0].Name)
	}
	if _, err := config.Parse(a.configPath, []byte(draft.Text), sections()); err != nil {
		return &usageError{err: fmt.Errorf("what init would write is no configuration, and was not written: %w", err)}
	}
	if f.options.Image == "" && !released.MatchString(version()) {
		draft.Unknown = append(draft.Unknown, "the image of the probes: this build is no release; set swarm.image, see docs/configuration.md")
	}
	return a.initiated(f, found, others, draft)
}

// free refuses files that are there.
func (a *app) free(f initFlags) error {
	for _, path := range []string{a.configPath, f.workflow} {
		if _, err := os.Lstat(path); path != "" && err == nil && !f.force && !f.dryRun {
			return usagef("look at it first; then: --force, or another file: --config FILE", "%s exists already", path)
		}
	}
	return nil
}

// deployed returns the services of a Swarm.
func (a *app) deployed(ctx context.Context, engine *config.Swarm) ([]scaffold.Service, error) {
	docker, err := a.docker(engine)
	if err != nil {
		return nil, &usageError{err: fmt.Errorf("--host %s: %w", engine.Host, err), hint: rotation.HintOf(err)}
	}
	defer docker.Close()
	list, err := swarm.New(docker.Client, swarm.Options{Logger: a.log}).Found(ctx)
	if err != nil {
		return nil, err
	}
	var out []scaffold.Service
	for _, f := range list {
		s := scaffold.Service{Name: f.Name, Stack: f.Stack, Env: f.Env}
		for _, m := range f.Mounts {
			s.Mounts = append(s.Mounts, scaffold.Mount(m))
		}
		out = append(out, s)
	}
	return out, nil
}

// pick returns the full names of services, which may be named without their stack's.
func pick(all []scaffold.Service, names []string) ([]string, error) {
	var known, out []string
	for _, s := range all {
		known = append(known, s.Name)
	}
	for _, name := range names {
		var fit []string
		for _, s := range all {
			if s.Name == name || s.Stack != "" && s.Name == s.Stack+"_"+name {
				fit = append(fit, s.Name)
			}
		}
		switch {
		case slices.Contains(fit, name):
			out = append(out, name)
		case len(fit) == 1:
			out = append(out, fit[0])
		case len(fit) > 1:
			return nil, usagef("write the full name: "+strings.Join(fit, " or "), "%d services are called %q", len(fit), name)
		default:
			return nil, usagef("services: "+or(strings.Join(known, ", "), "none"), "there is no service %q in the Swarm", name)
		}
	}
	return out, nil
}

func noSecrets(others []scaffold.Stranger, named []string) error {
	if len(others) == 0 {
		return usagef("what is in variables, in the image or in a config cannot be rotated: mount a secret first, see docs/applications.md",
			"%s mounts no secret", strings.Join(named, ", "))
	}
	var names []string
	for _, o := range others {
		names = append(names, o.Secret)
	}
	return usagef("write the configuration by hand, see docs/configuration.md",
		"no secret of %s is a database's by its name: %s", strings.Join(named, ", "), strings.Join(names, ", "))
}

// usual are the files that stacks are deployed from.
func usual(stack string) []string {
	return []string{"deploy/" + stack + ".yml", "deploy/" + stack + ".yaml", stack + ".yml", stack + ".yaml",
		"docker-stack.yml", "stack.yml", "docker-compose.yml", "compose.yaml", "compose.yml"}
}

// stackFileOf reads the stack file that was named, or looks for one that has the
// services of the stack.
func stackFileOf(o *scaffold.Options, found []scaffold.Credential) error {
	files := []string{o.StackFile}
	if o.StackFile == "" && found[0].Stack != "" {
		files = usual(found[0].Stack)
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		f, err := readStackFile(file)
		if err != nil && o.StackFile != "" {
			return err
		}
		if err != nil {
			continue
		}
		missing := ""
		for _, c := range found {
			for _, r := range c.Services {
				name := strings.TrimPrefix(r.Service, c.Stack+"_")
				if _, ok := f.Service(name); !ok && !r.Along {
					missing = name
				}
			}
		}
		if missing != "" && o.StackFile != "" {
			return usagef("name the file that this stack is deployed from", "the stack file %s has no service %q", file, missing)
		}
		if missing == "" {
			o.StackFile = filepath.ToSlash(file)
			return nil
		}
	}
	return nil
}

// initiated writes what was drafted and says what is next.
func (a *app) initiated(f initFlags, found []scaffold.Credential, others []scaffold.Stranger, draft scaffold.Draft) error {
	files := []struct {
		path string
		text []byte
	}{{a.configPath, []byte(draft.Text)}, {f.workflow, examples.Rotate}}
	var wrote []string
	for _, file := range files {
		if file.path == "" || f.dryRun {
			continue
		}
		if err := writeNew(file.path, file.text, f.force); err != nil {
			return err
		}
		wrote = append(wrote, file.path)
	}
	if a.output == "json" {
		a.json(map[string]any{"wrote": wrote, "configuration": draft.Text, "credentials": found, "not_taken": others,
			"unknown": draft.Unknown, "next": a.next(f)})
		return nil
	}
	if f.dryRun {
		a.printf("%s", draft.Text)
	}
	for _, path := range wrote {
		a.printf("wrote %s\n", path)
	}
	a.printFound(found, others, draft.Unknown)
	for i, command := range a.next(f) {
		lead := "      "
		if i == 0 {
			lead = "next: "
		}
		a.printf("%s%s\n", lead, command)
	}
	return nil
}

// writeNew writes a file, and its folder if there is none.
func writeNew(path string, text []byte, force bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return usagef("name another file", "writing %s: %w", path, err)
	}
	how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	file, err := os.OpenFile(path, how, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usagef("look at it first; then: --force", "%s exists already", path)
	}
	if err != nil {
		return usagef("name another file", "writing %s: %w", path, err)
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func (a *app) printFound(found []scaffold.Credential, others []scaffold.Stranger, unknown []string) {
	for _, c := range found {
		a.printf("%s\n", c.Name)
		for _, field := range sortedKeys(c.Secrets) {
			a.printf("  %s: %s\n", field, c.Secrets[field])
		}
		for _, r := range c.Services {
			along := ""
			if r.Along {
				along = ", which mounts the same secret"
			}
			a.printf("  read by %s%s: %s\n", r.Service, along, strings.Join(slices.Concat(sortedKeys(r.Env), sortedKeys(r.File), sortedKeys(r.Path)), ", "))
		}
	}
	for _, o := range others {
		a.printf("not taken: %s of %s: no name says that it is a database's\n", o.Secret, o.Service)
	}
	for _, u := range unknown {
		a.printf("not known: %s\n", u)
	}
}

// next are the commands that come after init.
func (a *app) next(f initFlags) []string {
	if f.dryRun {
		return []string{"run it again without --dry-run"}
	}
	return []string{"look through " + a.configPath + ", then: keyturn doctor"}
}
