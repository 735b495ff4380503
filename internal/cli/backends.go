package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/backend/github"
	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
)

// backendKind is what a backend brings: its section of the configuration, how
// one is made from it, and how its credentials are tried.
type backendKind struct {
	Section config.Section
	New     func(a *app, settings any, how reached) (rotation.Backend, error)
	Login   rotation.Login
}

// reached is how this run uses a backend.
type reached struct {
	credential string
	overlap    time.Duration
	emergency  bool
	revoking   bool                        // what is in service was stolen
	ready      func(context.Context) error // before connections are made; nil: there is nothing to do
	dial       dialer                      // nil: the network
}

// backends is the one place that names them.
var backends = map[string]backendKind{
	"certificate": {Section: certificate.Section, New: of("certificate", newCertificate), Login: certificate.Login},
	"consul":      {Section: consul.Section, New: of("consul", newConsul), Login: consul.Login},
	"github":      {Section: github.Section, New: of("github", newGitHub), Login: github.Login},
	"kafka":       {Section: kafka.Section, New: of("kafka", newKafka), Login: kafka.Login},
	"postgres":    {Section: postgres.Section, New: of("postgres", newPostgres), Login: postgres.Login},
	"vault":       {Section: vault.Section, New: of("vault", newVault), Login: vault.Login},
}

func sections() map[string]config.Section {
	out := map[string]config.Section{}
	for name, kind := range backends {
		out[name] = kind.Section
	}
	return out
}

func loginOf(backend string) rotation.Login { return backends[backend].Login }

// of has a backend made from its own section.
func of[S any](backend string, build func(*app, S, reached) (rotation.Backend, error)) func(*app, any, reached) (rotation.Backend, error) {
	return func(a *app, settings any, how reached) (rotation.Backend, error) {
		s, ok := settings.(S)
		if !ok {
			return nil, fmt.Errorf("the section of %s is a %T", backend, settings)
		}
		return build(a, s, how)
	}
}

// remote is what backends share; the authority they read themselves.
func (a *app) remote(how reached) remote.Options {
	return remote.Options{Getenv: a.Getenv, Logger: a.log, Ready: how.ready, Dial: remote.Dial(how.dial)}
}

func newPostgres(a *app, s postgres.Settings, how reached) (rotation.Backend, error) {
	o := postgres.Options{Getenv: a.Getenv, Now: a.Now, Logger: a.log, Emergency: how.emergency, Ready: how.ready, Dial: how.dial}
	var err error
	if o.CA, err = authority(s.CA, s.Admin); err != nil {
		return nil, err
	}
	if s.Gap() != "" {
		return postgres.NewSingle(s, o)
	}
	return postgres.New(s, o)
}

func newConsul(a *app, s consul.Settings, how reached) (rotation.Backend, error) {
	o := consul.Options{Credential: how.credential, Options: a.remote(how)}
	var err error
	if o.CA, err = authority(s.CA, "Consul"); err != nil {
		return nil, err
	}
	switch {
	case s.GossipKey != nil:
		return consul.NewGossip(s, o)
	case s.AgentToken != nil:
		return consul.NewAgent(s, o)
	}
	return consul.New(s, o)
}

func newKafka(a *app, s kafka.Settings, how reached) (rotation.Backend, error) {
	o := kafka.Options{Emergency: how.emergency, Options: a.remote(how)}
	var err error
	if o.CA, err = authority(s.CA, "Kafka"); err != nil {
		return nil, err
	}
	if s.Principal != "" {
		return kafka.NewMechanisms(s, o)
	}
	return kafka.New(s, o)
}

func newCertificate(a *app, s certificate.Settings, how reached) (rotation.Backend, error) {
	o := certificate.Options{Credential: how.credential, Overlap: how.overlap, Stolen: how.revoking, Now: a.Now, Options: a.remote(how)}
	var err error
	if s.ACME != nil {
		if o.CA, err = authority(s.ACME.CA, "the ACME server"); err != nil {
			return nil, err
		}
	}
	if s.Vault != nil {
		if o.CA, err = authority(s.Vault.CA, "Vault"); err != nil {
			return nil, err
		}
	}
	if s.StepCA != nil {
		if o.CA, err = authority(s.StepCA.CA, "step-ca"); err != nil {
			return nil, err
		}
	}
	if o.Roots, err = authority(s.Roots, "the certificates"); err != nil {
		return nil, err
	}
	if s.ACME != nil && s.ACME.Rollover {
		return certificate.NewAccountKey(s, o)
	}
	if s.RotateCA != nil {
		var files [][]byte
		for _, path := range s.RotateCA.Trust {
			content, err := authority(path, "services")
			if err != nil {
				return nil, err
			}
			files = append(files, content)
		}
		return certificate.NewTrust(s, o, files)
	}
	if s.Trigger != "" {
		if o.CA, err = authority(s.CertManager.CA, "Kubernetes"); err != nil {
			return nil, err
		}
		return certificate.NewManaged(s, o, how.emergency || how.revoking)
	}
	if s.Adopt != "" {
		if o.Adopted, err = os.ReadFile(s.Adopt); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, usagef("the path is relative to the working directory", "reading the certificate that services serve today: %w", err)
		}
	}
	return certificate.New(s, o)
}

func newVault(a *app, s vault.Settings, how reached) (rotation.Backend, error) {
	o := vault.Options{Credential: how.credential, Options: a.remote(how)}
	var err error
	if o.CA, err = authority(s.CA, "Vault"); err != nil {
		return nil, err
	}
	shares := s.Seal
	switch {
	case s.AppRole != nil:
		return vault.New(s, o)
	case s.Barrier != nil:
		return vault.NewKeyring(s, o)
	case s.Recovery != nil:
		shares = s.Recovery
	}
	for _, path := range shares.Holders {
		key, err := readFile(path, "the key of a holder")
		if err != nil {
			return nil, err
		}
		o.Holders = append(o.Holders, key)
	}
	o.Tell = a.awaiting
	return vault.NewSeal(s, o)
}

// awaiting says what a run waits for while it does.
func (a *app) awaiting(what, hint string) {
	fmt.Fprintf(a.Stderr, "  waiting for %s\n    %s\n", what, hint)
}

// authority reads the file of an authority, if one is named.
func authority(path, of string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	return readFile(path, "the authority of "+of)
}

// readFile reads a file that the configuration names.
func readFile(path, what string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("the path is relative to the working directory", "reading %s: %w", what, err)
	}
	return b, nil
}

// installedOn is the repository by which the App's installation is found: of an
// organisation, the one that the run belongs to.
func (a *app) installedOn(s github.Settings) (owner, repo string, err error) {
	if owner, repo = s.Repository(); repo != "" {
		return owner, repo, nil
	}
	name := a.Getenv("GITHUB_REPOSITORY")
	if a.cfg != nil && a.cfg.GitHub != nil && a.cfg.GitHub.Repository != "" {
		name = a.cfg.GitHub.Repository
	}
	of, repo, _ := strings.Cut(name, "/")
	if !strings.EqualFold(of, owner) || repo == "" {
		return "", "", usagef("name a repository of the organisation, on which the App is installed: github: {repository: "+owner+"/…}",
			"nothing says by which repository the App is found in the organisation %s", owner)
	}
	return owner, repo, nil
}

func newGitHub(a *app, s github.Settings, how reached) (rotation.Backend, error) {
	if how.dial != nil {
		return nil, usagef("leave through out", "GitHub is reached directly: through: swarm is not built for it")
	}
	owner, repo, err := a.installedOn(s)
	if err != nil {
		return nil, err
	}
	as := config.GitHub{Token: s.Token}
	if s.App != nil {
		as.App = &config.App{ID: s.App.ID, Key: s.App.Key}
	}
	app, err := a.borrow(owner, repo, as)
	if err != nil {
		return nil, err
	}
	o := github.Options{Credential: how.credential, App: app, Now: a.Now, Logger: a.log}
	if hosts := s.KnownHosts(); hosts != "" {
		if o.KnownHosts, err = readFile(hosts, fmt.Sprintf("the known hosts of %s/%s", owner, repo)); err != nil {
			return nil, err
		}
	}
	return github.New(s, o)
}
