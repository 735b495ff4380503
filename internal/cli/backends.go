package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/keyturn/keyturn/internal/backend/postgres"
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
	emergency bool
	ready     func(context.Context) error // before connections are made; nil: there is nothing to do
	dial      dialer                      // nil: the network
}

// backends is the one place that names them.
var backends = map[string]backendKind{
	"postgres": {Section: postgres.Section, New: newPostgres, Login: postgres.Login},
}

func sections() map[string]config.Section {
	out := map[string]config.Section{}
	for name, kind := range backends {
		out[name] = kind.Section
	}
	return out
}

func loginOf(backend string) rotation.Login { return backends[backend].Login }

func newPostgres(a *app, settings any, how reached) (rotation.Backend, error) {
	s, ok := settings.(postgres.Settings)
	if !ok {
		return nil, fmt.Errorf("the section of postgres is a %T", settings)
	}
	o := postgres.Options{Getenv: a.Getenv, Now: a.Now, Logger: a.log, Emergency: how.emergency, Ready: how.ready, Dial: how.dial}
	if s.CA != "" {
		ca, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, usagef("the path is relative to the working directory", "reading the authority of %s: %w", s.Admin, err)
		}
		o.CA = ca
	}
	return postgres.New(s, o)
}
