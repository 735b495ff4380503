package swarm

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// The kinds of use.
const (
	useSpec     = "spec"
	usePrevious = "previous-spec"
	useTask     = "task"
)

// Observe implements [rotation.Target].
func (t *Target) Observe(ctx context.Context, v rotation.Version) (rotation.Holding, error) {
	objects, err := t.objects(ctx, v)
	if err != nil {
		return rotation.Holding{}, fmt.Errorf("observing version %d of %q: %w", v.Number, v.Credential, err)
	}
	h := rotation.Holding{Objects: objects, Complete: len(objects) > 0}
	want := t.fields(v.Credential)
	for field := range v.Objects {
		want = append(want, field)
	}
	for _, field := range want {
		if _, ok := objects[field]; !ok {
			h.Complete = false
		}
	}
	uses, err := t.uses(ctx, v.Credential, holds(v, objects))
	if err != nil {
		return rotation.Holding{}, fmt.Errorf("observing version %d of %q: %w", v.Number, v.Credential, err)
	}
	for _, u := range uses {
		h.Uses = append(h.Uses, u.Use)
	}
	return h, nil
}

// objects returns what exists of a version. An object on record is found by its
// id; where none is on record, as after a crash, by the name that it would
// have, if our labels say that it is the one: somebody else may have made a
// secret of that name.
func (t *Target) objects(ctx context.Context, v rotation.Version) (map[string]rotation.Object, error) {
	list, err := t.engine.secrets(ctx)
	if err != nil {
		return nil, err
	}
	want := map[string]rotation.Object{}
	for field, o := range v.Objects {
		want[field] = o
	}
	for _, field := range t.fields(v.Credential) {
		if _, ok := want[field]; ok || v.Number == 0 {
			continue
		}
		name, err := t.nameOf(v.Credential, field, v.Number)
		if err != nil {
			return nil, err
		}
		want[field] = rotation.Object{Name: name}
	}
	found := map[string]rotation.Object{}
	for field, o := range want {
		s, ok := findIn(list, o)
		owner := s.Spec.Labels[labelCredential]
		if ok && (bears(s, v) || o.ID != "" && (owner == "" || owner == v.Credential)) {
			found[field] = rotation.Object{ID: s.ID, Name: s.Spec.Name}
		}
	}
	return found, nil
}

// holds tells the references to objects of a version from others. A secret that
// was removed and made again under its name counts too.
func holds(v rotation.Version, found map[string]rotation.Object) func(*swarm.SecretReference) bool {
	ids, names := map[string]bool{}, map[string]bool{}
	for _, objects := range []map[string]rotation.Object{v.Objects, found} {
		for _, o := range objects {
			ids[o.ID], names[o.Name] = true, true
		}
	}
	delete(ids, "")
	return func(ref *swarm.SecretReference) bool { return ids[ref.SecretID] || names[ref.SecretName] }
}

// A use is a [rotation.Use] with the service that it comes from.
type use struct {
	rotation.Use
	service swarm.Service
}

// uses returns every spec, previous spec and task that has a reference for
// which ours is true. Probes are not uses. The previous spec of a job is none:
// no update could move it on without running the job. The spec of a service
// that is ignored on purpose and runs nothing is an idle use.
func (t *Target) uses(ctx context.Context, credential string, ours func(*swarm.SecretReference) bool) ([]use, error) {
	services, err := t.engine.services(ctx)
	if err != nil {
		return nil, err
	}
	tasks, err := t.engine.tasks(ctx)
	if err != nil {
		return nil, err
	}
	var uses []use
	byID, busy := map[string]swarm.Service{}, map[string]bool{}
	for _, task := range tasks {
		busy[task.ServiceID] = busy[task.ServiceID] || alive(task)
	}
	for _, s := range services {
		byID[s.ID] = s
		if isProbe(s.Spec) {
			continue
		}
		if names(s.Spec.TaskTemplate, ours) {
			idle := !busy[s.ID] && t.ignored(credential, s.Spec.Name)
			uses = append(uses, use{rotation.Use{Kind: useSpec, Name: s.Spec.Name, Idle: idle}, s})
		}
		if s.PreviousSpec != nil && !(service{Service: s}).job() && names(s.PreviousSpec.TaskTemplate, ours) {
			uses = append(uses, use{rotation.Use{Kind: usePrevious, Name: s.Spec.Name}, s})
		}
	}
	down := map[string]string(nil) // is asked for at need
	for _, task := range tasks {
		s := byID[task.ServiceID]
		if !alive(task) || isProbe(s.Spec) || ofProbe(task) || !names(task.Spec, ours) {
			continue
		}
		u := rotation.Use{Kind: useTask, Name: taskName(s.Spec.Name, task), Detail: string(task.Status.State)}
		if !running(task.DesiredState) && down == nil {
			if down, err = t.engine.downNodes(ctx); err != nil {
				return nil, err
			}
		}
		if node, ok := down[task.NodeID]; ok {
			// It may run on where nobody hears from it: only people know better.
			u.Detail = "was " + u.Detail + " on node " + node + ", which is down"
			u.Hint = "bring node " + node + " back; if it is lost for good, remove it: docker node demote " + task.NodeID +
				" (a manager), docker node rm --force " + task.NodeID
		}
		uses = append(uses, use{u, s})
	}
	return uses, nil
}

// ignored reports whether a service is left alone on purpose.
func (t *Target) ignored(credential, service string) bool {
	return slices.ContainsFunc(t.Layouts[credential].Ignore, func(i Ignored) bool { return i.Service == service && i.Reason != "" })
}

func isProbe(s swarm.ServiceSpec) bool { return s.Labels[labelProbe] != "" || isRelay(s) }

func isRelay(s swarm.ServiceSpec) bool { return s.Labels[labelRelay] != "" }

// ofProbe reports whether a task is a probe's, also when its service is gone.
func ofProbe(t swarm.Task) bool {
	return t.Spec.ContainerSpec != nil && t.Spec.ContainerSpec.Labels[labelProbe] != ""
}

// names reports whether a task of this spec gets a secret for which ours is true.
func names(spec swarm.TaskSpec, ours func(*swarm.SecretReference) bool) bool {
	return spec.ContainerSpec != nil && slices.ContainsFunc(spec.ContainerSpec.Secrets, ours)
}

// alive reports whether a task has its secrets, or will get them.
func alive(task swarm.Task) bool {
	return !ended(task.Status.State) && (running(task.DesiredState) || started(task.Status.State))
}

// ended reports whether a task has come to its end.
func ended(s swarm.TaskState) bool {
	switch s {
	case swarm.TaskStateComplete, swarm.TaskStateShutdown, swarm.TaskStateFailed,
		swarm.TaskStateRejected, swarm.TaskStateRemove, swarm.TaskStateOrphaned:
		return true
	}
	return false
}

// running reports whether a desired state means that the task is to run.
func running(desired swarm.TaskState) bool {
	return desired != swarm.TaskStateShutdown && desired != swarm.TaskStateRemove
}

// started reports whether a node has taken the task.
func started(s swarm.TaskState) bool {
	return !ended(s) && s != swarm.TaskStateNew && s != swarm.TaskStateAllocated && s != swarm.TaskStatePending
}

func taskName(service string, task swarm.Task) string {
	place := task.NodeID
	if task.Slot > 0 {
		place = strconv.Itoa(task.Slot)
	}
	return fmt.Sprintf("%s.%s.%s", service, place, task.ID)
}

// Orphans implements [rotation.Target]: every version of which a secret exists,
// by label, or by the name that its base and number give.
func (t *Target) Orphans(ctx context.Context, credential string) ([]rotation.Orphan, error) {
	list, err := t.engine.secrets(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for versions of %q: %w", credential, err)
	}
	found := map[int]*rotation.Orphan{}
	for _, s := range list {
		field, number := t.recognise(credential, s)
		if number == 0 {
			continue
		}
		o := found[number]
		if o == nil {
			o = &rotation.Orphan{Version: rotation.Version{Credential: credential, Number: number, Objects: map[string]rotation.Object{}}}
			found[number] = o
		}
		o.Version.Objects[field] = rotation.Object{ID: s.ID, Name: s.Spec.Name}
		if id := s.Spec.Labels[labelRotation]; id != "" {
			o.Rotation = id
		}
	}
	var orphans []rotation.Orphan
	for _, o := range found {
		orphans = append(orphans, *o)
	}
	slices.SortFunc(orphans, func(a, b rotation.Orphan) int { return a.Version.Number - b.Version.Number })
	return orphans, nil
}

// recognise returns the field and the number of a secret of the credential.
func (t *Target) recognise(credential string, s swarm.Secret) (field string, number int) {
	owner := s.Spec.Labels[labelCredential]
	if owner != "" && owner != credential {
		return "", 0
	}
	fields := t.fields(credential)
	for _, field := range fields {
		if n := t.numberIn(credential, field, s.Spec.Name); n > 0 {
			return field, n
		}
	}
	if owner == "" {
		return "", 0
	}
	// Ours, of a field that is not read any more, or whose base name was changed.
	n, err := strconv.Atoi(s.Spec.Labels[labelVersion])
	if err != nil || n < 1 {
		return "", 0
	}
	return s.Spec.Name, n
}

// numberIn returns the number in the name of a secret of the field, or 0.
func (t *Target) numberIn(credential, field, name string) int {
	found := regexp.MustCompile("^" + regexp.QuoteMeta(t.base(credential, field)) + `_v([1-9][0-9]{0,8})$`).FindStringSubmatch(name)
	if found == nil {
		return 0
	}
	n, _ := strconv.Atoi(found[1]) // the pattern leaves only numbers
	return n
}
