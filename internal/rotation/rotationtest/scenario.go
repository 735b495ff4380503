package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A Scenario is a world with a script of phases, each of which is run by a
// process of its own.
type Scenario struct {
	World   *World
	Journal *Journal
	Leaser  rotation.Leaser
	Procs   func() []rotation.Procedure // made anew for every process
	Script  []Act

	hooks   int
	hookAt  []int // the hooks, counted over all processes, at which the process is killed
	last    string
	crashes int
	runs    int
	ids     int
	err     error // of the last act
}

// An Act is one phase that somebody runs, again after it was killed.
type Act struct {
	Phase   rotation.Phase
	Options rotation.Options
	Before  func(*World)                   // what happens in the world before it
	Waits   func(*World, rotation.Summary) // what happens when it waits; nil: the clock moves on
	Fails   bool                           // the phase is to fail, and leave nothing open
}

// Cycle returns the acts of one rotation.
func Cycle() []Act {
	return []Act{{Phase: rotation.Prepare}, {Phase: rotation.Validate}, {Phase: rotation.Cutover}, {Phase: rotation.Cleanup}}
}

// Policy returns a policy for fakes. Overlap, grace and bound are of the world's
// clock, the others of the real one: run it in a synctest bubble.
func Policy() rotation.Policy {
	return rotation.Policy{Overlap: 24 * time.Hour, Grace: 24 * time.Hour, Bound: 7 * 24 * time.Hour, AcceptGap: true,
		ProbeTimeout: 30 * time.Second, ProbeEvery: time.Second, Drain: 10 * time.Second}
}

// Standard returns the usual procedure of a credential in this world.
func (w *World) Standard(b rotation.Backend, t rotation.Target, credential string, places ...rotation.Placement) *rotation.Standard {
	prints, err := secret.NewFingerprinter(secret.FromString(strings.Repeat("k", 32)))
	if err != nil {
		panic(err)
	}
	for i := range places {
		places[i].Credential = credential
	}
	return &rotation.Standard{Name: credential, Backend: b, Target: t, Placements: places, Prints: prints,
		Render: map[string]string{"url": "db://u:{password}@host/"}, Policy: Policy(), Now: w.Now}
}

// Adopt takes over a version 1 that services read already.
func (s *Scenario) Adopt(v rotation.Version) error {
	_, err := s.Engine().Adopt(context.Background(), v.Credential, rotation.Options{},
		func(context.Context) (rotation.Adoption, error) { return rotation.Adoption{Version: v}, nil })
	s.hooks = 0
	return err
}

type killed struct{}

// Engine returns the engine of a new process.
func (s *Scenario) Engine() *rotation.Engine {
	s.runs++
	run := fmt.Sprintf("run-%d", s.runs)
	return &rotation.Engine{Journal: s.Journal, Leaser: s.Leaser, Run: rotation.Holder{Run: run}, Now: s.World.Now,
		Dead:  func(h rotation.Holder) bool { return h.Run != run }, // one process at a time runs here
		NewID: func() string { s.ids++; return fmt.Sprintf("rotation-%d", s.ids) },
		Hook:  s.hook}
}

func (s *Scenario) hook(at string) {
	s.hooks++
	s.last = at
	if slices.Contains(s.hookAt, s.hooks) {
		s.World.Kill()
		panic(killed{})
	}
}

// once runs a phase in a process of its own, which may be killed.
func (s *Scenario) once(a Act) (sum rotation.Summary, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			err = ErrDead
		}
	}()
	return s.Engine().Do(context.Background(), a.Phase, s.Procs(), a.Options)
}

// Run plays the script. A phase that was killed is run again by a new process.
func (s *Scenario) Run() error {
	for i, a := range s.Script {
		if a.Before != nil {
			a.Before(s.World)
		}
		if err := s.play(a); err != nil {
			return fmt.Errorf("act %d, %s, after %q: %w", i+1, a.Phase, s.last, err)
		}
	}
	return s.End()
}

func (s *Scenario) play(a Act) error {
	crashed := false
	for range 20 {
		sum, err := s.once(a)
		s.err = err
		switch {
		case s.World.Dead():
			crashed = true
			s.crashes++
			s.World.Revive()
		case err == nil && sum.Outcome == rotation.Waiting && a.Waits != nil:
			a.Waits(s.World, sum)
		case err == nil && sum.Outcome == rotation.Waiting:
			if !sum.Until.After(s.World.Now()) {
				return fmt.Errorf("waits for %s until %s, now %s", sum.For, sum.Until, s.World.Now())
			}
			s.World.Advance(sum.Until.Sub(s.World.Now()))
		case err == nil && a.Fails:
			return errors.New("it went well, and was to fail")
		case err == nil:
			return s.World.closed()
		case a.Fails && s.closed():
			return nil
		case crashed && s.closed() && a.Phase == rotation.Rollback && rotation.ClassOf(err) == rotation.Refused:
			return nil // the killed process had brought it to its end
		case crashed && s.closed() && a.Phase == rotation.Prepare:
			// it was taken back, and starts afresh
		default:
			return err
		}
	}
	return fmt.Errorf("it comes to no end: %w", s.err)
}

// closed reports whether no rotation is open.
func (s *Scenario) closed() bool {
	l, err := s.Journal.Ledger()
	return err == nil && !slices.ContainsFunc(l.Names(), func(n string) bool { return l.Credential(n).Open != nil })
}

// End says what is wrong with the state at the end: nothing may be open, each
// backend accepts the current version alone, services read it alone, and the
// target holds it alone.
func (s *Scenario) End() error {
	l, err := s.Journal.Ledger()
	if err != nil {
		return err
	}
	errs := []error{s.World.Faults()}
	for _, p := range s.Procs() {
		errs = append(errs, s.endOf(l.Credential(p.Credential())))
	}
	if len(s.World.locks) > 0 {
		errs = append(errs, fmt.Errorf("locks are left: %v", s.World.locks))
	}
	return errors.Join(errs...)
}

func (s *Scenario) endOf(c rotation.Credential) error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{c.Name}, args...)...))
	}
	if c.Open != nil {
		wrong("rotation %s is open at %s", c.Open.ID, c.Open.Phase)
	}
	if len(c.Queue) > 0 {
		wrong("%d things are queued", len(c.Queue))
	}
	current, _ := c.In(rotation.Current)
	want := []int{current.Number}
	if current.Number == 0 {
		want = nil
	}
	if got := s.World.Accepted(c.Name); !slices.Equal(got, want) {
		wrong("accepted are %v, current is %v", got, want)
	}
	for _, o := range s.World.objectsOf(c.Name) {
		if o.number != current.Number {
			wrong("object %q of version %d is left, current is %d", o.name, o.number, current.Number)
		}
	}
	for name := range s.World.services {
		if got := s.World.Reads(name, c.Name); len(got) > 0 && !slices.Equal(got, want) {
			wrong("service %s reads %v, current is %v", name, got, want)
		}
	}
	for _, v := range c.Versions {
		if v.State != rotation.Current && v.State != rotation.Retired && v.State != rotation.Discarded {
			wrong("version %d is %s", v.Number, v.State)
		}
	}
	return errors.Join(errs...)
}

func (w *World) objectsOf(credential string) []object {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []object
	for _, o := range w.objects {
		if o.credential == credential {
			out = append(out, *o)
		}
	}
	return out
}

// outcome is what a crashed run must have in common with one that was not:
// how often services came to a new version, and each version's end.
func (s *Scenario) outcome() string {
	var out []string
	l, err := s.Journal.Ledger()
	if err != nil {
		return err.Error()
	}
	cutovers := map[string]int{}
	for _, r := range s.Journal.All() {
		if r.Phase == rotation.Cutover && r.Step == "" && r.Status == rotation.RecordDone {
			cutovers[r.Credential]++
		}
	}
	for _, name := range l.Names() {
		retired := 0
		for _, v := range l.Credential(name).Versions {
			if v.State == rotation.Retired {
				retired++
			}
		}
		_, current := l.Credential(name).In(rotation.Current)
		out = append(out, fmt.Sprintf("%s: %d cutovers, %d retired, current %v", name, cutovers[name], retired, current))
	}
	return strings.Join(out, "; ")
}

// CrashMatrix plays a scenario once without a crash, then with the process
// killed at every hook of the engine (before and after every record, effect
// and undo), then in the middle of every call (after every single effect), then
// with a second kill during the resume. Each time the phase is run again by a
// new process, which shares nothing but world and journal. The invariant holds
// throughout, and the end is the same. Of the hooks every second is tried, and
// second kills are sampled, unless KEYTURN_CRASH=all is in the environment.
func CrashMatrix(t *testing.T, build func() *Scenario) {
	t.Helper()
	var calm *Scenario
	synctest.Test(t, func(t *testing.T) {
		calm = build()
		if err := calm.Run(); err != nil {
			t.Fatalf("without a crash: %v", err)
		}
	})
	hooks, effects, want := calm.hooks, len(calm.World.Effects()), calm.outcome()
	if hooks == 0 || effects == 0 {
		t.Fatalf("%d hooks and %d effects: the scenario does nothing", hooks, effects)
	}
	points := 0
	try := func(what string, prepare func(*Scenario)) {
		var s *Scenario
		var err error
		synctest.Test(t, func(*testing.T) { // waits cost no time, and no slow machine cuts one off
			s = build()
			prepare(s)
			err = s.Run()
		})
		if err == nil && s.crashes > 0 && s.outcome() != want {
			err = fmt.Errorf("the end is %q, want %q", s.outcome(), want)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		points++
	}
	all := os.Getenv("KEYTURN_CRASH") == "all"
	for n := 1; n <= hooks; n++ {
		if m := n - 1; !all && ((m+m/2)%2 == 1 || testing.Short() && n%5 != 0) {
			continue // hooks come in pairs, before and after: of one pair the former, of the next the latter
		}
		try(fmt.Sprintf("killed at hook %d", n), func(s *Scenario) { s.hookAt = []int{n} })
		if n%4 != 0 && !all {
			continue
		}
		again := n + 1 + (n*7)%23
		try(fmt.Sprintf("killed at hooks %d and %d", n, again), func(s *Scenario) { s.hookAt = []int{n, again} })
	}
	for n := 1; n <= effects; n++ {
		try(fmt.Sprintf("killed after effect %d", n), func(s *Scenario) { s.World.KillAfter(n) })
	}
	t.Logf("%d points, %d hooks, %d effects; at the end: %s", points, hooks, effects, want)
}

// Bubble runs a test in which waits cost no time.
func Bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}
