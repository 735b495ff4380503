package rotationtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// service is a service of the target: what it should read, what it would go
// back to, and what each of its tasks read when it started.
type service struct {
	spec, previous spec
	tasks          []task
	refuses        map[int]bool // versions with which its tasks are unhealthy
	ill            bool         // unhealthy for a reason of its own
	updates        int
}

// slot is where a service reads one version of one credential.
type slot struct {
	Credential string `json:"credential"`
	Beside     bool   `json:"beside,omitempty"`
	Number     int    `json:"number"`
	Identity   string `json:"identity"`
}

type spec struct {
	slots []slot
}

func (s spec) clone() spec { s.slots = slices.Clone(s.slots); return s }

func (s spec) names(v rotation.Version) bool {
	return slices.ContainsFunc(s.slots, func(x slot) bool { return x.Credential == v.Credential && x.Number == v.Number })
}

// task is what a task holds of each credential.
type task map[string][]holds

type holds struct {
	number          int
	identity, value string
}

// Service adds a service with tasks that read nothing yet.
func (w *World) Service(name string, tasks int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &service{refuses: map[int]bool{}}
	for range tasks {
		s.tasks = append(s.tasks, task{})
	}
	w.services[name] = s
}

// Running makes a version 1 of a credential that somebody else made: accepted,
// active, stored under names of its own, and read by the services.
func (w *World) Running(credential, identity string, fields []string, services ...string) rotation.Version {
	w.core(credential)
	w.mu.Lock()
	defer w.mu.Unlock()
	value := "somebody's " + credential
	v := rotation.Version{Credential: credential, Number: 1, Identity: identity, State: rotation.Current,
		Public: map[string]string{"username": identity}, Objects: map[string]rotation.Object{}}
	sys := w.systems[credential]
	sys.accounts[identity], sys.armed[1], sys.active = &account{number: 1, value: value}, value, identity
	for _, field := range fields {
		w.serial++
		o := &object{id: fmt.Sprintf("id%d", w.serial), name: credential + "_" + field, credential: credential, field: field, value: value, number: 1}
		w.objects[o.name], w.names[o.name] = o, true
		v.Objects[field] = rotation.Object{ID: o.id, Name: o.name}
	}
	for _, name := range services {
		s := w.services[name]
		s.set(credential, slot{Credential: credential, Number: 1, Identity: identity}, nil)
		for i := range s.tasks {
			s.tasks[i] = w.start(s.spec)
		}
	}
	return v
}

// Unhealthy makes every task of a service that starts with a version unhealthy,
// or healthy again.
func (w *World) Unhealthy(service string, number int, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services[service].refuses[number] = on
}

// DeployOld is a stack file, deployed again, that names another version.
func (w *World) DeployOld(service string, v rotation.Version) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.services[service]
	s.previous = s.spec.clone()
	s.set(v.Credential, slot{Credential: v.Credential, Number: v.Number, Identity: v.Identity}, nil)
	for i := range s.tasks {
		s.tasks[i] = w.start(s.spec)
		w.look("an old stack file was deployed")
	}
}

// Ill makes a service unhealthy for a reason of its own, or well again.
func (w *World) Ill(service string, ill bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services[service].ill = ill
}

// Strip takes what is mounted beside the current version of a credential away
// from a service, as a deploy of the stack file does.
func (w *World) Strip(service, credential string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.services[service]
	s.previous = s.spec.clone()
	s.spec.slots = slices.DeleteFunc(slices.Clone(s.spec.slots), func(x slot) bool { return x.Credential == credential && x.Beside })
	for i := range s.tasks {
		s.tasks[i] = w.start(s.spec)
		w.look("a deploy stripped " + service)
	}
}

// Drop removes a stored version behind everybody's back.
func (w *World) Drop(v rotation.Version) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range v.Objects {
		delete(w.objects, o.Name)
	}
}

// Reads returns the numbers that a service's spec names of a credential.
func (w *World) Reads(service, credential string) []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []int
	for _, x := range w.services[service].spec.slots {
		if x.Credential == credential {
			out = append(out, x.Number)
		}
	}
	return out
}

// Updates returns how many times a service was updated by moves.
func (w *World) Updates(service string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.services[service].updates
}

// Accepted returns the numbers of the versions that a backend accepts now, sorted.
func (w *World) Accepted(credential string) []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []int
	s := w.systems[credential]
	for identity, a := range s.accounts {
		if w.accepts(s, identity, a.value) {
			out = append(out, a.number)
		}
	}
	slices.Sort(out)
	return out
}

// Until returns when a version's account ends; the zero time if it does not.
func (w *World) Until(v rotation.Version) (until string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.systems[v.Credential].accounts[v.Identity]; a != nil && !a.until.IsZero() {
		return a.until.UTC().Format("2006-01-02T15:04:05Z")
	}
	return ""
}

// set puts the slots of one credential, and leaves every other field alone.
func (s *service) set(credential string, main slot, beside *slot) {
	s.spec.slots = slices.DeleteFunc(slices.Clone(s.spec.slots), func(x slot) bool { return x.Credential == credential })
	s.spec.slots = append(s.spec.slots, main)
	if beside != nil {
		s.spec.slots = append(s.spec.slots, *beside)
	}
	slices.SortFunc(s.spec.slots, func(a, b slot) int {
		if a.Credential != b.Credential {
			return map[bool]int{true: -1, false: 1}[a.Credential < b.Credential]
		}
		return a.Number - b.Number
	})
}

// start returns what a task reads that starts with a spec now.
func (w *World) start(s spec) task {
	t := task{}
	for _, x := range s.slots {
		value, ok := w.passwordOf(x.Credential, x.Number)
		if !ok {
			_ = w.faultf("a task cannot start: version %d of %q is not stored", x.Number, x.Credential)
		}
		t[x.Credential] = append(t[x.Credential], holds{x.Number, x.Identity, value})
	}
	return t
}

func (w *World) passwordOf(credential string, number int) (string, bool) {
	for _, o := range w.objects {
		if o.credential == credential && o.number == number && o.field == "password" {
			return o.value, true
		}
	}
	return "", false
}

// Move implements [rotation.Target]: one update per service, its tasks one by
// one, the new one started before the old one ends. The lease is asked before
// each.
func (t *Target) Move(ctx context.Context, shifts []rotation.Shift) (rotation.Report, error) {
	var report rotation.Report
	by := map[string][]rotation.Shift{}
	for _, sh := range shifts {
		by[sh.Placement.Service] = append(by[sh.Placement.Service], sh)
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if err := rotation.CheckLease(ctx); err != nil {
			return report, err
		}
		err := t.w.call(ctx, "move", func() error {
			r, err := t.w.update(name, by[name])
			report.Services = append(report.Services, r)
			return err
		})
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

func (w *World) update(name string, shifts []rotation.Shift) (rotation.ServiceReport, error) {
	s, ok := w.services[name]
	r := rotation.ServiceReport{Service: name}
	if !ok {
		return r, w.faultf("there is no service %q", name)
	}
	r.Tasks = len(s.tasks)
	was := s.spec.clone()
	for _, sh := range shifts {
		credential := sh.Placement.Credential
		var beside *slot
		if sh.Beside != nil {
			beside = &slot{credential, true, sh.Beside.Number, sh.Beside.Identity}
		}
		s.set(credential, slot{credential, false, sh.Main.Number, sh.Main.Identity}, beside)
	}
	if !slices.Equal(was.slots, s.spec.slots) {
		s.previous, r.Updated = was, true
		s.updates++
		if err := w.effect("update %s", name); err != nil {
			return r, err
		}
	}
	return r, w.roll(name, s, &r)
}

// roll replaces the tasks that do not hold what the spec says.
func (w *World) roll(name string, s *service, r *rotation.ServiceReport) error {
	for i := range s.tasks {
		fresh := w.start(s.spec)
		if !maps.EqualFunc(fresh, s.tasks[i], slices.Equal) {
			s.tasks[i] = fresh
			r.Restarts++
			if err := w.effect("task %d of %s", i, name); err != nil {
				return err
			}
		}
		for _, x := range s.spec.slots {
			if s.refuses[x.Number] {
				r.Unhealthy = fmt.Sprintf("task %d", i)
				return fmt.Errorf("service %q: task %d: %w", name, i, rotation.ErrUnhealthy)
			}
		}
	}
	return nil
}

// Spoil changes a version's value behind everybody's back: its login is refused.
// What services hold of it is no longer looked at.
func (w *World) Spoil(v rotation.Version) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.systems[v.Credential].accounts[v.Identity]; a != nil && a.number == v.Number {
		a.value = "somebody changed it"
	}
}

// UseLocked makes a service read a version, from inside a [Plan]'s Do.
func (w *World) UseLocked(service string, v rotation.Version) {
	s := w.services[service]
	s.set(v.Credential, slot{Credential: v.Credential, Number: v.Number, Identity: v.Identity}, nil)
}

// AdvanceLocked moves the clock, from inside a [Plan]'s Do.
func (w *World) AdvanceLocked(d time.Duration) { w.now = w.now.Add(d) }
