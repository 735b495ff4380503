package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/oklog/ulid/v2"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target/directory"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// wiring is everything that a command needs, made from the configuration.
type wiring struct {
	cfg      *config.Config
	engine   *rotation.Engine
	procs    map[string]*rotation.Standard
	adopters map[string]adopter
	journal  *records
	closers  []func() error
}

// adopter is the half of a target that takes over what is there.
type adopter interface {
	Adopt(ctx context.Context, credential string) (rotation.Version, error)
}

func (w *wiring) close() {
	for _, c := range slices.Backward(w.closers) {
		_ = c() // what is closed here was only read from, or is freed with the process
	}
}

// config reads the configuration.
func (a *app) config() (*config.Config, error) {
	cfg, err := config.Read(a.configPath, sections())
	if _, ok := errors.AsType[config.Faults](err); ok {
		return nil, &usageError{err: err}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("name it: --config FILE", "there is no configuration %s", a.configPath)
	}
	if err != nil {
		return nil, usagef("name a file that can be read: --config FILE", "reading the configuration: %w", err)
	}
	return cfg, nil
}

// journalPath returns where the journal is kept: what the configuration says,
// or a file in the user's state folder, named after the configuration.
func (a *app) journalPath(cfg *config.Config) string {
	if cfg.Journal != "" {
		return cfg.Journal
	}
	state := a.Getenv("XDG_STATE_HOME")
	if state == "" {
		state = filepath.Join(a.Getenv("HOME"), ".local", "state")
	}
	return filepath.Join(state, "keyturn", "journal.jsonl")
}

// wire makes the engine and a procedure for every credential. It opens the
// journal and reads the administrators' secrets; it connects to nothing.
func (a *app) wire(_ context.Context, f phaseFlags) (_ *wiring, err error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	w := &wiring{cfg: cfg, procs: map[string]*rotation.Standard{}, adopters: map[string]adopter{}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	home, prints, err := a.openJournal(cfg)
	if err != nil {
		return nil, err
	}
	run := ulid.Make().String()
	release, err := home.Enter(run)
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, release)
	w.journal = newRecords(home, a.signature(run))
	show := &progress{w: a.Stderr, terminal: a.interactive()}
	w.engine = &rotation.Engine{
		Journal: w.journal, Run: rotation.Holder{Run: run, Attempt: 1}, Now: a.Now, Watch: show.show, Hook: a.Hook,
		NewID: func() string { return ulid.Make().String() },
		Dead: func(h rotation.Holder) bool {
			alive, known := home.Alive(h.Run)
			return known && !alive
		},
	}
	return w, a.wireTargets(w, prints, f)
}

// signature is what every entry of this run says of who wrote it.
func (a *app) signature(run string) journal.Entry {
	e := journal.Entry{Run: journal.Run{ID: run, PID: os.Getpid()}, Commit: a.Getenv("GITHUB_SHA")}
	e.Run.Host, _ = os.Hostname()
	e.Actor.Name = a.Getenv("USER")
	if id := a.Getenv("GITHUB_RUN_ID"); id != "" {
		e.Run.URL = a.Getenv("GITHUB_SERVER_URL") + "/" + a.Getenv("GITHUB_REPOSITORY") + "/actions/runs/" + id
		e.Run.Attempt, _ = strconv.Atoi(a.Getenv("GITHUB_RUN_ATTEMPT"))
		e.Actor.Name = a.Getenv("GITHUB_ACTOR")
	}
	return e
}

func (a *app) openJournal(cfg *config.Config) (*journal.File, *secret.Fingerprinter, error) {
	home, err := journal.Open(a.journalPath(cfg), journal.Options{Create: true, Now: a.Now,
		InActions: a.Getenv("GITHUB_ACTIONS") == "true", Workspace: a.Getenv("GITHUB_WORKSPACE")})
	if err != nil {
		return nil, nil, err
	}
	key, err := a.fingerprintKey(cfg, home)
	if err != nil {
		return nil, nil, err
	}
	prints, err := secret.NewFingerprinter(key)
	if err != nil {
		return nil, nil, &usageError{err: fmt.Errorf("reading the fingerprint key: %w", err), hint: "make one: openssl rand -hex 32"}
	}
	return home, prints, nil
}

func (a *app) fingerprintKey(cfg *config.Config, home *journal.File) (secret.Value, error) {
	if !cfg.FingerprintKey.IsZero() {
		return cfg.FingerprintKey.Read(a.Getenv)
	}
	entries, err := home.Read(context.Background())
	if err != nil {
		return secret.Value{}, fmt.Errorf("reading the journal: %w", err)
	}
	key, ok := journal.FingerprintKey(entries)
	if !ok {
		return secret.Value{}, usagef("set fingerprint-key in the configuration", "the journal has no fingerprint key of its own")
	}
	return key, nil
}

// wireTargets makes the target, its leases, and the procedures.
func (a *app) wireTargets(w *wiring, prints *secret.Fingerprinter, f phaseFlags) error {
	for _, c := range w.cfg.Credentials {
		b, err := backends[c.Backend].New(a, c.Settings, f.emergency)
		if err != nil {
			return fmt.Errorf("credential %q: %w", c.Name, err)
		}
		w.procs[c.Name] = &rotation.Standard{
			Name: c.Name, Backend: b, Placements: placements(c), Render: c.Render, Prints: prints, Now: a.Now,
			Force: f.force != "", Emergency: f.emergency,
			Policy: rotation.Policy{Every: c.Every, Overlap: c.Overlap, Grace: c.Grace, Bound: c.Bound,
				MinimumAge: c.MinAge, Strict: c.Strict, AcceptGap: c.AcceptGap, ProbeTimeout: c.Rollout.HealthTimeout},
		}
	}
	if w.cfg.Directory != nil {
		return a.wireDirectory(w)
	}
	return a.wireSwarm(w)
}

func (a *app) wireDirectory(w *wiring) error {
	o := directory.Options{Root: w.cfg.Directory.Path, Logins: loginOf, Getenv: a.Getenv,
		Public: map[string][]string{}, Restart: map[string]directory.Restart{}}
	for _, c := range w.cfg.Credentials {
		o.Placements = append(o.Placements, placements(c)...)
		if p, ok := c.Settings.(interface{ PublicFields() []string }); ok {
			o.Public[c.Name] = p.PublicFields()
		}
		if len(c.Restart) > 0 {
			o.Restart[c.Name] = directory.Restart{Argv: c.Restart}
		}
	}
	t, err := directory.New(o)
	if err != nil {
		return err
	}
	w.engine.Leaser = &rotation.JournalLeaser{Journal: w.journal, Now: a.Now}
	for name, p := range w.procs {
		p.Target = t
		w.adopters[name] = t
		if len(p.Placements) == 0 {
			p.Placements = []rotation.Placement{{Credential: name, Mounts: rotation.Switch}}
		}
	}
	return nil
}

func (a *app) wireSwarm(w *wiring) error {
	docker, err := a.docker(w.cfg.Swarm.Host)
	if err != nil {
		return usagef("", "swarm %s: %w", w.cfg.Swarm.Host, err)
	}
	w.closers = append(w.closers, docker.Close)
	o := swarm.Options{Layouts: map[string]swarm.Layout{}, ProbeImage: a.probeImage(w.cfg), Logger: a.log}
	for _, c := range w.cfg.Credentials {
		l := swarm.Layout{Secrets: c.Secrets, Placements: placements(c)}
		for _, ig := range c.Ignore {
			l.Ignore = append(l.Ignore, swarm.Ignored{Service: ig.Service, Reason: ig.Reason})
		}
		o.Layouts[c.Name] = l
	}
	t := swarm.New(docker, o)
	w.engine.Leaser = t
	for name, p := range w.procs {
		p.Target = t
		w.adopters[name] = t
	}
	return nil
}

// probeImage is the image of the probes: this release's, unless the
// configuration names another.
func (a *app) probeImage(cfg *config.Config) string {
	if cfg.Swarm.Image != "" {
		return cfg.Swarm.Image
	}
	return "ghcr.io/keyturn/keyturn:" + Version
}

func placements(c config.Credential) []rotation.Placement {
	var out []rotation.Placement
	for _, s := range c.Services {
		out = append(out, rotation.Placement{
			Credential: c.Name, Service: s.Name, Env: s.Env, File: s.File, Path: s.Path, UID: s.UID, GID: s.GID, Mode: s.Mode,
			Mounts: rotation.Mounts(c.Mounts),
			Rollout: rotation.Rollout{Order: c.Rollout.Order, Parallelism: c.Rollout.Parallelism, Delay: c.Rollout.Delay,
				Monitor: c.Rollout.Monitor, HealthTimeout: c.Rollout.HealthTimeout, Timeout: c.Rollout.Timeout},
		})
	}
	return out
}
