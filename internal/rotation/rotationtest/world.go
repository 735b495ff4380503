// Package rotationtest holds what tests of rotations share: a fake world, in
// which a fake backend and a fake target know the truth and an invariant is
// looked at after every effect; procedures of six shapes upon it (drafted, minted,
// activated at cutover, replacing, overwriting, waiting for people); the contract
// test that every real backend must pass; the crash matrix and the fault matrix.
package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// ErrDead is what every call of a killed process gets: it has no effect.
var ErrDead = errors.New("the process is dead")

// A World is the truth that the fakes share: which versions the backends accept
// at this instant, and which one each task of each service reads.
//
// After every effect, also in the middle of a call, the invariant is looked at:
// each task holds at least one version that its backend accepts. A breach, a
// number used twice, and the removal of what is in use are faults, which
// [World.Faults] returns.
type World struct {
	mu       sync.Mutex
	now      time.Time
	systems  map[string]*system
	objects  map[string]*object
	names    map[string]bool // object names ever used
	services map[string]*service
	planned  []*Plan
	faults   []error
	effects  []string
	calls    []string
	locks    map[string]bool
	dead     bool
	dieAt    int // the number of the effect after which the process dies; 0: never
	serial   int
}

// system is one backend's truth.
type system struct {
	gap      bool             // it holds one value at a time: the invariant does not hold
	staged   map[int]*account // of a replacing backend: every version, by its number; nil: it is none
	accounts map[string]*account
	active   string // the identity that was activated
	down     bool
	armed    map[int]string // number → the value it was ever armed with
	ceremony *ceremony      // of people; nil: none are asked
	mute     map[int]bool   // versions whose logins get no answer
}

// account is one identity in a backend.
type account struct {
	number   int
	value    string
	until    time.Time
	ended    bool
	sessions []rotation.Use
}

// object is one stored field.
type object struct {
	id, name, credential, field, value, rotation string
	number                                       int
}

// New returns an empty world; its clock stands at a fixed time.
func New() *World {
	return &World{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), systems: map[string]*system{}, objects: map[string]*object{},
		names: map[string]bool{}, services: map[string]*service{}, locks: map[string]bool{}}
}

// Now returns the world's time.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Advance moves the clock, and looks at the invariant.
func (w *World) Advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
	w.look(fmt.Sprintf("the clock moved by %s", d))
}

// Down makes a backend unable to answer anybody, or able again.
func (w *World) Down(credential string, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.systems[credential].down = down
}

// Outage says that services of a credential may be without a version that works from
// now on, as after a revocation.
func (w *World) Outage(credential string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.systems[credential].gap = on
}

// Mute makes the backend give no answer to the logins of a version, or answer again.
func (w *World) Mute(v rotation.Version, mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.systems[v.Credential]
	if s.mute == nil {
		s.mute = map[int]bool{}
	}
	s.mute[v.Number] = mute
}

// Session adds a session, or ends them all if the client is "".
func (w *World) Session(credential, identity, client string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.systems[credential].accounts[identity]
	if client == "" {
		a.sessions = nil
		return
	}
	a.sessions = append(a.sessions, rotation.Use{Kind: "session", Name: client})
}

// Kill makes every later call of the running process fail without effect.
func (w *World) Kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
}

// KillAfter kills the process in the middle of a call: right after the n-th
// effect from now, counted from 1.
func (w *World) KillAfter(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dieAt = len(w.effects) + n
}

// Revive lets a new process begin. What the dead one held on to (locks of its
// sessions) is gone.
func (w *World) Revive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead, w.dieAt = false, 0
	clear(w.locks)
}

// Dead reports whether the process was killed.
func (w *World) Dead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// Effects returns every effect so far, in order.
func (w *World) Effects() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.effects)
}

// Calls returns every call so far, in order.
func (w *World) Calls() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls)
}

// Faults returns what must not have happened.
func (w *World) Faults() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.faults...)
}

// Values returns every value that was ever stored or accepted, to look for in texts.
func (w *World) Values() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[string]bool{}
	for _, s := range w.systems {
		for _, v := range s.armed {
			found[v] = true
		}
	}
	for _, o := range w.objects {
		if o.field == "password" {
			found[o.value] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func (w *World) faultf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	w.faults = append(w.faults, fmt.Errorf("after %d effects: %w", len(w.effects), err))
	return err
}

// effect notes that something changed and looks at the invariant. It returns
// [ErrDead] if the process dies at this point: what would follow in the same
// call does not happen.
func (w *World) effect(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	w.effects = append(w.effects, what)
	w.look(what)
	if w.dieAt != 0 && len(w.effects) >= w.dieAt {
		w.dead = true
		return ErrDead
	}
	return nil
}

// look asks for the invariant.
func (w *World) look(after string) {
	w.faults = append(w.faults, w.lacking(after, func(s *system) bool { return !s.gap })...)
}

// closed asks for the invariant of backends with a gap: none is open when a phase is over.
func (w *World) closed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.lacking("the phase", func(s *system) bool { return s.gap })...)
}

// lacking returns the tasks that hold no version that works, of some backends.
func (w *World) lacking(after string, of func(*system) bool) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(w.services)) {
		for i, t := range w.services[name].tasks {
			for credential, held := range t {
				sys := w.systems[credential]
				if sys == nil || !of(sys) || len(held) == 0 {
					continue
				}
				if !slices.ContainsFunc(held, func(h holds) bool { return w.accepts(sys, h.identity, h.value) }) {
					errs = append(errs, fmt.Errorf("after %q: task %d of %s holds no version of %q that works: %v",
						after, i, name, credential, numbersOf(held)))
				}
			}
		}
	}
	return errs
}

func numbersOf(held []holds) []int {
	var out []int
	for _, h := range held {
		out = append(out, h.number)
	}
	return out
}

// accepts reports whether a backend lets a value in, now.
func (w *World) accepts(s *system, identity, value string) bool {
	a, ok := s.accounts[identity]
	return ok && !a.ended && a.value == value && (a.until.IsZero() || w.now.Before(a.until))
}

// call runs one call of a fake: under the world's lock, with the fault that is
// planned for it.
func (w *World) call(ctx context.Context, name string, do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return ErrDead
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.calls = append(w.calls, name)
	p := w.plannedFor(name)
	if p == nil {
		return do()
	}
	if p.Do != nil {
		p.Do(name)
	}
	switch p.How {
	case FailBefore:
		return fmt.Errorf("%s: made to fail", name)
	case Reject:
		return fmt.Errorf("%s: %w", name, rotation.ErrRejected)
	case LoseBefore:
		return rotation.Errorf(rotation.Unknown, "", "%s: no answer", name)
	case CrashBefore:
		w.dead = true
		return ErrDead
	}
	err := do()
	switch {
	case err != nil:
		return err
	case p.How == FailAfter:
		return fmt.Errorf("%s: made to fail", name)
	case p.How == LoseAfter:
		return rotation.Errorf(rotation.Unknown, "", "%s: no answer", name)
	case p.How == CrashAfter:
		w.dead = true
		return ErrDead
	}
	return nil
}
