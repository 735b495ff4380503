package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// A SharedEngine is one engine for all tests of a package, started when the
// first of them asks for it. The zero value is ready; tests keep it in a
// variable of the package. It ends with the test binary; [Main] waits for that.
type SharedEngine struct {
	// Options are those of the engine.
	Options EngineOptions

	once   sync.Once
	engine *Engine
	err    error
}

// Get returns the engine, or ends the test as [Require] says.
func (s *SharedEngine) Get(t testing.TB) *Engine {
	t.Helper()
	s.once.Do(func() { s.engine, s.err = StartEngine(context.Background(), s.Options) })
	Require(t, s.err)
	return s.engine
}

// Stop stops the engine if it was started.
func (s *SharedEngine) Stop() error {
	s.once.Do(func() { s.err = errors.New("the shared engine was stopped") })
	if s.engine == nil {
		return nil
	}
	return s.engine.Stop()
}

// A SharedPostgres is one server for all tests of a package, as [SharedEngine]
// is. Tests that share one use databases and roles of their own.
type SharedPostgres struct {
	// Options are those of the server.
	Options PostgresOptions

	once   sync.Once
	server *Postgres
	err    error
}

// Get returns the server, or ends the test as [Require] says.
func (s *SharedPostgres) Get(t testing.TB) *Postgres {
	t.Helper()
	s.once.Do(func() { s.server, s.err = StartPostgres(context.Background(), s.Options) })
	Require(t, s.err)
	return s.server
}

// Stop stops the server if it was started, and removes it.
func (s *SharedPostgres) Stop() error {
	s.once.Do(func() { s.err = errors.New("the shared server was stopped") })
	if s.server == nil {
		return nil
	}
	return s.server.Remove()
}

// kept is a server in a folder of its own, for all tests of a package.
type kept[S any] struct {
	once   sync.Once
	dir    string
	server *S
	err    error
}

// get returns the server, which the first call starts.
func (k *kept[S]) get(t testing.TB, start func(dir string) (*S, error)) *S {
	t.Helper()
	k.once.Do(func() {
		if k.dir, k.err = os.MkdirTemp("", "keyturn-server-"); k.err == nil {
			k.server, k.err = start(k.dir)
		}
	})
	Require(t, k.err)
	return k.server
}

// end stops the server if it was started, and removes its folder.
func (k *kept[S]) end(stop func(*S)) error {
	k.once.Do(func() { k.err = errors.New("the shared server was stopped") })
	if k.server == nil {
		return nil
	}
	stop(k.server)
	return os.RemoveAll(k.dir)
}

// Main runs the tests of a package and then stops the servers that they
// shared: func TestMain(m *testing.M) { os.Exit(testserver.Main(m, &engine)) }.
// Whatever the tests put aside lies in one folder, that goes away even if they are
// killed: see [Scratch].
func Main(m *testing.M, servers ...interface{ Stop() error }) int {
	remove, err := Scratch()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testserver:", err)
		return 1
	}
	code := m.Run()
	for _, s := range servers {
		if err := s.Stop(); err != nil {
			fmt.Fprintf(os.Stderr, "testserver: stopping a shared server: %v\n", err)
			code = max(code, 1)
		}
	}
	if err := remove(); err != nil {
		fmt.Fprintln(os.Stderr, "testserver:", err)
		code = max(code, 1)
	}
	return code
}
