package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"

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
	app      *app
	cfg      *config.Config
	engine   *rotation.Engine
	procs    map[string]*rotation.Standard
	adopters map[string]adopter
	journal  rotation.Journal
	home     home                    // nil if there is no journal yet
	sign     journal.Entry           // who we are, in every entry
	note     string                  // that there is no journal yet; "" if there is
	swarm    *swarm.Target           // nil if the target is a directory
	relays   map[string]*swarm.Relay // by credential, of those that are reached through the Swarm
	closers  []func() error
	kept     atomic.Bool // a lease could not be given back
	look     bool        // nothing is changed
}

// adopter is the half of a target that takes over what is there.
type adopter interface {
	Adopt(ctx context.Context, credential string) (rotation.Version, error)
}

func (w *wiring) close() {
	w.app.deliver(w)
	if !w.look {
		w.measure()
	}
	if s, ok := w.journal.(*spooled); ok {
		w.app.seen = placed(s.Seen(), 0)
	}
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
	if a.cfg = cfg; a.step != nil {
		a.mask(cfg)
	}
	return cfg, nil
}

// wire makes the engine and a procedure for every credential. It opens the
// journal and reads the administrators' secrets; it connects to nothing. Who
// looks writes nothing, and does not show among the runs that are alive.
func (a *app) wire(ctx context.Context, f phaseFlags, look bool) (*wiring, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	home, note, err := a.open(ctx, cfg, look)
	if err != nil {
		return nil, err
	}
	return a.wired(ctx, cfg, home, note, f, look)
}

// wired makes a wiring with a journal that is open, or with none.
func (a *app) wired(ctx context.Context, cfg *config.Config, home home, note string, f phaseFlags, look bool) (_ *wiring, err error) {
	w := &wiring{app: a, cfg: cfg, procs: map[string]*rotation.Standard{}, adopters: map[string]adopter{}, journal: noJournal{}, home: home, look: look}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	prints, err := a.fingerprints(ctx, cfg, home, look)
	if err != nil {
		return nil, err
	}
	w.note = note
	run := a.runID(ulid.Make().String())
	if home != nil {
		w.sign = a.signature(run)
		if !look {
			a.verified(ctx, &w.sign.Actor)
		}
		w.journal = newRecords(home, w.sign)
	}
	w.engine = &rotation.Engine{
		Journal: w.journal, Run: rotation.Holder{Run: run, Attempt: 1}, Now: a.Now, Watch: a.watch, Hook: a.Hook,
		NewID: func() string { return ulid.Make().String() },
		Dead: func(h rotation.Holder) bool {
			alive, known := home.Alive(h.Run)
			return known && !alive
		},
	}
	if !look {
		release, err := home.Enter(run)
		if err != nil {
			return nil, err
		}
		w.closers = append(w.closers, func() error {
			if w.kept.Load() {
				return nil // its file stays, free: whoever finds the lease knows that this run is dead
			}
			return release()
		})
	}
	return w, a.wireTargets(w, prints, f)
}

// wireTargets makes the target, its leases, and the procedures.
func (a *app) wireTargets(w *wiring, prints *secret.Fingerprinter, f phaseFlags) error {
	for _, c := range w.cfg.Credentials {
		b, err := backends[c.Backend].New(a, c.Settings, w.reach(c, f))
		if err != nil {
			return fmt.Errorf("credential %q: %w", c.Name, err)
		}
		w.procs[c.Name] = &rotation.Standard{
			Name: c.Name, Backend: b, Placements: placements(c), Render: c.Render, Prints: prints, Now: a.Now,
			Force: f.force != "", Emergency: f.emergency, Blueprint: w.blueprint(c),
			Policy: rotation.Policy{Every: c.Every, Overlap: c.Overlap, Grace: c.Grace, Bound: c.Bound,
				MinimumAge: c.MinAge, Strict: c.Strict, AcceptGap: c.AcceptGap, ProbeTimeout: c.Rollout.HealthTimeout},
		}
	}
	if err := a.wireTarget(w); err != nil {
		return err
	}
	for name, p := range w.procs {
		own, ok := p.Backend.(rotation.Placed)
		if !ok {
			continue
		}
		p.Target, p.Placements = own.Place(), nil
		if t, ok := p.Target.(adopter); ok {
			w.adopters[name] = t
		}
	}
	return nil
}

// wireTarget makes the target of the credentials that have no place of their own.
func (a *app) wireTarget(w *wiring) error {
	switch {
	case w.cfg.Directory != nil:
		return a.wireDirectory(w)
	case w.cfg.ActionsSecrets != nil:
		return a.wireActionsSecrets(w)
	case w.cfg.Swarm != nil:
		return a.wireSwarm(w)
	}
	w.engine.Leaser = &rotation.JournalLeaser{Journal: w.journal, Now: a.Now, Kept: func() { w.kept.Store(true) }}
	return nil
}

func (a *app) wireDirectory(w *wiring) error {
	o := directory.Options{Root: w.cfg.Directory.Path, Logins: loginOf, Getenv: a.Getenv,
		Public: map[string][]string{}, Derived: map[string][]string{}, Restart: map[string]directory.Restart{}}
	for _, c := range w.cfg.Credentials {
		o.Placements = append(o.Placements, readers(c)...)
		if p, ok := c.Settings.(interface{ PublicFields() []string }); ok {
			o.Public[c.Name] = p.PublicFields()
		}
		if d, ok := c.Settings.(interface{ DerivedFields() []string }); ok {
			o.Derived[c.Name] = d.DerivedFields()
		}
		if len(c.Restart) > 0 {
			o.Restart[c.Name] = directory.Restart{Argv: c.Restart}
		}
	}
	made, err := directory.New(o)
	if err != nil {
		return err
	}
	t := restarting{made}
	w.engine.Leaser = &rotation.JournalLeaser{Journal: w.journal, Now: a.Now, Kept: func() { w.kept.Store(true) }}
	for _, c := range w.cfg.Credentials {
		p := w.procs[c.Name]
		p.Target, w.adopters[c.Name] = t, t
		if len(p.Placements) == 0 {
			p.Placements = []rotation.Placement{{Credential: c.Name, Mounts: rotation.Mounts(c.Mounts)}}
		}
	}
	return nil
}

// restarting is a directory that says which command it runs after a move.
type restarting struct{ *directory.Target }

var _ rotation.Restarter = restarting{}

// RestartCommand implements [rotation.Restarter].
func (r restarting) RestartCommand(credential string) []string { return r.Restart[credential].Argv }

// readers are the placements of a credential in a directory. One that names no
// service has a reader all the same, which needs every field.
func readers(c config.Credential) []rotation.Placement {
	places := placements(c)
	if c.Elsewhere() != "" {
		return nil
	}
	f, ok := c.Settings.(interface{ Fields() []string })
	if len(places) > 0 || !ok {
		return places
	}
	all := rotation.Placement{Credential: c.Name, Path: map[string]string{}}
	for _, field := range slices.Concat(f.Fields(), sortedKeys(c.Render)) {
		all.Path["/"+field] = field
	}
	return []rotation.Placement{all}
}

func (a *app) wireSwarm(w *wiring) error {
	docker, err := a.docker(w.cfg.Swarm)
	if err != nil {
		return err
	}
	w.closers = append(w.closers, docker.Close)
	image, err := probeImage(w.cfg, version())
	if err != nil {
		return err
	}
	o := swarm.Options{Layouts: map[string]swarm.Layout{}, ProbeImage: image, Logger: a.log}
	for _, c := range w.cfg.Credentials {
		l := swarm.Layout{Secrets: c.Secrets, Placements: placements(c)}
		for _, ig := range c.Ignore {
			l.Ignore = append(l.Ignore, swarm.Ignored{Service: ig.Service, Reason: ig.Reason})
		}
		o.Layouts[c.Name] = l
	}
	t := swarm.New(docker.Client, o)
	w.engine.Leaser, w.swarm = leasing{t, &w.kept}, t
	switch far := w.home.(type) {
	case branchHome:
		w.journal = newSpooled(far, shelf{t.Spool(far.owner())}, w.sign, a.Now)
		w.engine.Journal = w.journal
	case copied:
		s := newSpooled(far, shelf{t.Spool(far.owner)}, w.sign, a.Now)
		s.urgency = func([]journal.Entry) journal.Urgency { return journal.Later }
		w.journal, w.engine.Journal = s, s
	}
	w.wireRelays(t)
	for name, p := range w.procs {
		p.Target = t
		w.adopters[name] = t
	}
	return nil
}

// probeImage is the image of the probes: the one that the configuration names,
// or this release's. A build that was never released has none.
func probeImage(cfg *config.Config, version string) (string, error) {
	if cfg.Swarm.Image != "" {
		return cfg.Swarm.Image, nil
	}
	if !released.MatchString(version) {
		return "", usagef("name one that holds this program: swarm.image, see docs/configuration.md",
			"probes have no image: version %q is no release, and has none of its own", version)
	}
	return "ghcr.io/keyturn/keyturn:" + version, nil
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
