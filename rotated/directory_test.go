package rotated_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotated"
)

// versioned is a directory of versions as the directory target keeps it.
type versioned struct {
	t    *testing.T
	path string
}

func versions(t *testing.T) versioned { return versioned{t, t.TempDir()} }

func (v versioned) dir(n int) string { return filepath.Join(v.path, fmt.Sprintf("v%d", n)) }

func (v versioned) add(n int) {
	v.t.Helper()
	must(v.t, os.Mkdir(v.dir(n), 0o700))
	write(v.t, filepath.Join(v.dir(n), "username"), fmt.Sprintf("u%d", n))
	write(v.t, filepath.Join(v.dir(n), "password"), fmt.Sprintf("p%d\n", n))
}

func (v versioned) move(n int) {
	v.t.Helper()
	next := filepath.Join(v.path, "current.new")
	must(v.t, os.Symlink(fmt.Sprintf("v%d", n), next))
	must(v.t, os.Rename(next, filepath.Join(v.path, "current")))
}

func (v versioned) remove(n int) {
	v.t.Helper()
	must(v.t, os.RemoveAll(v.dir(n)))
}

func TestDir(t *testing.T) {
	v := versions(t)
	source := rotated.Dir(v.path, "username", "password")
	if _, err := source.Current(t.Context()); !errors.Is(err, rotated.ErrMissing) {
		t.Errorf("without a link: %v, want ErrMissing", err)
	}
	for n := 1; n <= 3; n++ {
		v.add(n)
		v.move(n)
		c, err := source.Current(t.Context())
		if got, want := c.Field("username")+"/"+c.Field("password"), fmt.Sprintf("u%d/p%d", n, n); got != want || err != nil {
			t.Errorf("version %d: %s, %v, want %s", n, got, err, want)
		}
		if want := filepath.Join(v.path, "current"); c.Origin() != want {
			t.Errorf("Origin = %q, want %q", c.Origin(), want)
		}
	}
}

// While a next version stands beside the current one, it is tried after it,
// and alone if the current one is gone.
func TestDirNext(t *testing.T) {
	v := versions(t)
	v.add(1)
	v.add(2)
	v.move(1)
	must(t, os.Symlink("v2", filepath.Join(v.path, "next")))
	source := rotated.Dir(v.path, "username", "password")
	users := func() (all []string) {
		candidates, err := source.Candidates(t.Context())
		must(t, err)
		for _, c := range candidates {
			all = append(all, c.Field("username")+"/"+c.Field("password"))
		}
		return all
	}
	if got, want := users(), []string{"u1/p1", "u2/p2"}; !slices.Equal(got, want) {
		t.Errorf("with a next version: %q, want %q", got, want)
	}
	must(t, os.Remove(filepath.Join(v.path, "current")))
	if got, want := users(), []string{"u2/p2"}; !slices.Equal(got, want) {
		t.Errorf("without a current one: %q, want %q", got, want)
	}
	v.move(1)
	must(t, os.Remove(filepath.Join(v.path, "v2", "password")))
	if got, want := users(), []string{"u1/p1"}; !slices.Equal(got, want) {
		t.Errorf("with half a next version: %q, want %q", got, want)
	}
}

func TestDirFaults(t *testing.T) {
	tests := map[string]struct {
		prep    func(v versioned)
		fields  []string
		missing bool
		fault   string
	}{
		"no directory":       {prep: func(v versioned) { must(v.t, os.Remove(v.path)) }, missing: true, fault: "no such file"},
		"no link":            {prep: func(v versioned) { v.add(1) }, missing: true, fault: "current"},
		"link to nothing":    {prep: func(v versioned) { v.move(7) }, missing: true, fault: "current"},
		"field missing":      {prep: func(v versioned) { v.add(1); v.move(1); must(v.t, os.Remove(filepath.Join(v.dir(1), "password"))) }, missing: true, fault: "current/password"},
		"field empty":        {prep: func(v versioned) { v.add(1); v.move(1); write(v.t, filepath.Join(v.dir(1), "password"), "") }, missing: true, fault: "is empty"},
		"field a directory":  {prep: func(v versioned) { v.add(1); v.move(1) }, fields: []string{"sub"}, fault: "not a regular file"},
		"link leads outside": {prep: func(v versioned) { must(v.t, os.Symlink(v.t.TempDir(), filepath.Join(v.path, "current"))) }, fault: "escapes"},
		"link to a file":     {prep: func(v versioned) { write(v.t, filepath.Join(v.path, "current"), "x") }, fault: "not a directory"},
		"no field asked for": {prep: func(v versioned) {}, fields: []string{}, fault: "no field"},
		"field with a path":  {prep: func(v versioned) {}, fields: []string{"../v1/password"}, fault: "cannot be the name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := versions(t)
			test.prep(v)
			if _, err := os.Stat(v.dir(1)); err == nil {
				must(t, os.Mkdir(filepath.Join(v.dir(1), "sub"), 0o700))
			}
			if test.fields == nil {
				test.fields = []string{"username", "password"}
			}
			_, err := rotated.Dir(v.path, test.fields...).Current(t.Context())
			if err == nil || errors.Is(err, rotated.ErrMissing) != test.missing || !strings.Contains(err.Error(), test.fault) {
				t.Errorf("Current: %v, want an error with %q, missing: %v", err, test.fault, test.missing)
			}
		})
	}
}

// Versions are added, moved to and removed as fast as possible, while readers
// read: never parts of two, and never an error of Dir. Reading the files one by one
// is the control, which must fail for the test to mean anything.
func TestMovesNeverMixVersions(t *testing.T) {
	v := versions(t)
	v.add(1)
	v.move(1)
	file := func(field string) string { return filepath.Join(v.path, "current", field) }
	env := map[string]string{"DB_USER_FILE": file("username"), "DB_PASSWORD_FILE": file("password")}
	sources := map[string]*rotated.Source{
		"Dir": rotated.Dir(v.path, "username", "password"),
		"Env": rotated.EnvFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, login),
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var all sync.WaitGroup
	var good, mixed atomic.Int64
	for name, source := range sources {
		all.Go(func() {
			for ctx.Err() == nil {
				c, err := source.Current(context.Background())
				if name == "Env" && errors.Is(err, rotated.ErrMissing) {
					continue // paths through the link: the version may be gone between two of them
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
					stop()
				} else if user, password := c.Field("username"), c.Field("password"); user[1:] != password[1:] {
					t.Errorf("%s mixes %s with %s", name, user, password)
					stop()
				}
				good.Add(1)
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			user, err1 := os.ReadFile(file("username"))
			password, err2 := os.ReadFile(file("password"))
			if err1 == nil && err2 == nil && string(user[1:])+"\n" != string(password[1:]) {
				mixed.Add(1)
			}
		}
	})
	moves := 1
	for ; ctx.Err() == nil && (moves < 1000 || mixed.Load() < 5 || good.Load() < 1000); moves++ {
		v.add(moves + 1)
		v.move(moves + 1)
		v.remove(moves)
	}
	stop()
	all.Wait()
	t.Logf("%d moves, %d whole readings, %d mixed ones by the control", moves, good.Load(), mixed.Load())
	if mixed.Load() == 0 || good.Load() < 1000 {
		t.Errorf("%d whole readings, %d mixed by the control: this shows nothing", good.Load(), mixed.Load())
	}
}
