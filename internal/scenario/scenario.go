// Package scenario is the one scene that the demo, the benchmark and the
// end-to-end tests play: a Docker Swarm and a PostgreSQL server of our own, and
// on them stacks whose tasks log in again and again, each time with a new
// connection and the credential from their mount. One stack is rotated with the
// real keyturn program, another with the script that people use today, under the
// same load and with the same update settings.
//
// Nothing here knows Keyturn from the inside: it runs the program, and reads
// afterwards what stands in the journal.
package scenario

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

const (
	database      = "shop"
	adminRole     = "keyturn"
	adminVariable = "KEYTURN_PG_PASSWORD"
	keyturnImage  = "keyturn:scenario"
)

// Options say how the scene is set. The zero value is usable.
type Options struct {
	// Mounts are Keyturn's: "switch" (the default) or "dual".
	Mounts string
	// Overlap is how long the previous version stays valid; 0 means 4 seconds.
	Overlap time.Duration
	// Monitor is how long both ways watch the last task of an update; 0 means 3 seconds.
	Monitor time.Duration
	// Delay is the pause of both ways between two tasks.
	Delay time.Duration
	// Every is the pause between the starts of two logins of one task; 0 means 20 milliseconds.
	Every time.Duration
	// Out is told every command and what it prints; nil means nobody.
	Out io.Writer
}

// A Scenario is the scene: the servers, the stacks on them, and a folder in
// which the commands are run. Its methods are for one goroutine at a time.
type Scenario struct {
	Options

	engine   *testserver.Engine
	postgres *testserver.Postgres
	dir      string // the working folder; it goes away with the engine
	program  string // the built keyturn
	image    string // of the load application
	password string // of the administrator in whose name keyturn works
}

// Start starts both servers and builds both images. What the machine cannot
// start gives an error that wraps [testserver.ErrMissing]. The caller calls
// [Scenario.Stop]; should this process be killed, the servers' guards clean up.
func Start(ctx context.Context, o Options) (*Scenario, error) {
	if o.Mounts == "" {
		o.Mounts = "switch"
	}
	if o.Overlap == 0 {
		o.Overlap = 4 * time.Second
	}
	if o.Monitor == 0 {
		o.Monitor = 3 * time.Second
	}
	if o.Every == 0 {
		o.Every = 20 * time.Millisecond
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	s := &Scenario{Options: o}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("setting the scene: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Scenario) start(ctx context.Context) error {
	var err error
	if s.engine, err = testserver.StartEngine(ctx, testserver.EngineOptions{}); err != nil {
		return err
	}
	if s.postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{}); err != nil {
		return err
	}
	s.dir = filepath.Join(s.engine.Dir(), "scenario")
	if err := os.MkdirAll(filepath.Join(s.dir, "docker"), 0o700); err != nil {
		return err
	}
	if s.image, err = s.engine.LoginLoadImage(ctx); err != nil {
		return err
	}
	if s.program, err = testserver.BuildGo(ctx, "./cmd/keyturn"); err != nil {
		return err
	}
	_, err = s.engine.BuildScratch(ctx, keyturnImage, map[string]string{"/keyturn": s.program}, testserver.ImageConfig{Entrypoint: []string{"/keyturn"}})
	if err != nil {
		return err
	}
	s.password = rand.Text()
	return s.postgres.Exec(ctx, "postgres", "CREATE DATABASE "+database,
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", adminRole, s.password))
}

// ErrLeft says that something of the scene could not be removed.
var ErrLeft = errors.New("not everything is removed")

// Stop ends everything at once and removes it. It may be called again. What it
// could not remove gives an error that wraps [ErrLeft].
func (s *Scenario) Stop() error {
	var errs []error
	if s.engine != nil {
		errs = append(errs, s.engine.Stop())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Remove())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrLeft, err)
	}
	return nil
}

// Where says in a few words where the servers are.
func (s *Scenario) Where() (engine, postgres, folder string) {
	return s.engine.Host(), s.postgres.Addr(), s.dir
}

// Restarted is how many tasks each slot of a stack goes through in one
// rotation, as Keyturn promises it: one in switch, two in dual.
func (s *Scenario) Restarted() int {
	if s.Mounts == "dual" {
		return 2
	}
	return 1
}
