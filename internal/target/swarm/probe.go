package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/versions"

	"github.com/keyturn/keyturn/internal/rotation"
)

const (
	probeSpecPath = "/run/keyturn/probe.json"
	probeDir      = "/run/secrets/keyturn"

	defaultProbe = 30 * time.Second // where the context has no end
	cleanLimit   = 10 * time.Second
	probeGrace   = time.Minute // after its deadline a probe is taken for dead
)

// Probe implements [rotation.Prober]. It runs a job with one task on the
// service's networks and nodes, as its user, with the secrets of the version
// as the service has them. The answer is the exit code; what the task printed
// gives the reasons, if it can be read.
func (t *Target) Probe(ctx context.Context, v rotation.Version, spec rotation.ProbeSpec, from rotation.Placement) rotation.ProbeResult {
	where := "the Swarm"
	if from.Service != "" {
		where = "where service " + from.Service + " runs"
	}
	result, err := t.probe(ctx, v, spec, from)
	if err != nil {
		result = rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: reason(err)}
	}
	result.From = where
	return result
}

// reason is an error and its hint on one line.
func reason(err error) string {
	if hint := rotation.HintOf(err); hint != "" {
		return fmt.Sprintf("%v (%s)", err, hint)
	}
	return err.Error()
}

func (t *Target) probe(ctx context.Context, v rotation.Version, spec rotation.ProbeSpec, from rotation.Placement) (_ rotation.ProbeResult, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultProbe)
		defer cancel()
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return rotation.ProbeResult{}, err
	}
	job, err := t.job(ctx, v, from)
	if err != nil {
		return rotation.ProbeResult{}, fmt.Errorf("preparing the probe: %w", err)
	}
	config, err := t.engine.ConfigCreate(ctx, swarm.ConfigSpec{Annotations: swarm.Annotations{Name: job.Name, Labels: job.Labels}, Data: data})
	if err != nil {
		return rotation.ProbeResult{}, fault(fmt.Errorf("storing what to probe: %w", err))
	}
	defer t.clean(ctx, "config "+job.Name, func(ctx context.Context) error { return t.engine.ConfigRemove(ctx, config.ID) })
	job.TaskTemplate.ContainerSpec.Configs = []*swarm.ConfigReference{{ConfigID: config.ID, ConfigName: job.Name,
		File: &swarm.ConfigReferenceFileTarget{Name: probeSpecPath, UID: "0", GID: "0", Mode: 0o444}}}
	wake, stop := t.watch(ctx)
	defer stop()
	made, err := t.engine.ServiceCreate(ctx, job, swarm.ServiceCreateOptions{})
	if err != nil {
		return rotation.ProbeResult{}, fault(fmt.Errorf("starting the probe: %w", err))
	}
	defer t.clean(ctx, "service "+job.Name, func(ctx context.Context) error { return t.engine.ServiceRemove(ctx, made.ID) })
	task, err := t.await(ctx, made.ID, wake)
	if err != nil {
		return rotation.ProbeResult{}, err
	}
	return t.answer(ctx, made.ID, task), nil
}

// clean removes what a probe made, also when its time is over. What is left
// is found by its label later; see [Target.Sweep].
func (t *Target) clean(ctx context.Context, what string, remove func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	// Swarm refuses to remove a config while the job that names it is on its way out.
	for {
		err := remove(ctx)
		if err == nil || errdefs.IsNotFound(err) {
			return
		}
		select {
		case <-ctx.Done():
			t.Logger.Warn("removing what a probe made", "what", what, "error", err)
			return
		case <-time.After(t.Poll):
		}
	}
}

// job describes the service that probes.
func (t *Target) job(ctx context.Context, v rotation.Version, from rotation.Placement) (swarm.ServiceSpec, error) {
	if t.ProbeImage == "" {
		return swarm.ServiceSpec{}, rotation.Errorf(rotation.Invalid, "set swarm.probe-image", "no image for probes is configured")
	}
	objects, err := t.objects(ctx, v)
	if err != nil {
		return swarm.ServiceSpec{}, err
	}
	for field := range v.Objects {
		if _, ok := objects[field]; !ok {
			return swarm.ServiceSpec{}, fmt.Errorf("the secret of field %q of version %d is gone", field, v.Number)
		}
	}
	v.Objects = objects
	var place service
	if from.Service != "" {
		if place, err = t.engine.service(ctx, from.Service); err != nil {
			return swarm.ServiceSpec{}, err
		}
	}
	deadline, _ := ctx.Deadline()
	l := labels(v, rotation.RotationID(ctx))
	l[labelProbe] = deadline.Add(probeGrace).UTC().Format(time.RFC3339)
	one := uint64(1)
	was := place.Spec.TaskTemplate
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: fmt.Sprintf("keyturn-probe-%016x", rand.Uint64()), Labels: l},
		Mode:        swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{
				Image: t.ProbeImage, Args: ProbeArgs(), Labels: l, ReadOnly: true,
				CapabilityDrop: []string{"ALL"},
			},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone},
			Networks:      slices.Clone(was.Networks),
			LogDriver:     &swarm.Driver{Name: "json-file"},
		},
	}
	if len(spec.TaskTemplate.Networks) == 0 {
		//lint:ignore SA1019 services that were made long ago have their networks there
		spec.TaskTemplate.Networks = slices.Clone(place.Spec.Networks)
	}
	for i := range spec.TaskTemplate.Networks {
		spec.TaskTemplate.Networks[i].Aliases = nil // clients of the service must not find the probe
	}
	c := spec.TaskTemplate.ContainerSpec
	if versions.GreaterThanOrEqualTo(t.engine.ClientVersion(), "1.46") { // older engines drop it without a word
		c.Privileges = &swarm.Privileges{NoNewPrivileges: true}
	}
	if was.Placement != nil {
		p := *was.Placement
		p.MaxReplicas, p.Platforms = 0, nil
		spec.TaskTemplate.Placement = &p
	}
	if as := was.ContainerSpec; as != nil {
		c.Groups, c.Hosts, c.DNSConfig = as.Groups, as.Hosts, as.DNSConfig
	}
	if c.Secrets, err = probeSecrets(v, viewOf(place.Spec), from); err != nil {
		return spec, err
	}
	c.User = t.probeUser(ctx, was.ContainerSpec, from, c.Secrets)
	return spec, nil
}

// probeUser returns who the probe runs as: the user of the service, of its
// image, or of the placement. A name means nothing in the probe's image, and
// root can read what others own only with capabilities that a probe does not
// have; then it is the owner of the mounted files.
func (t *Target) probeUser(ctx context.Context, as *swarm.ContainerSpec, from rotation.Placement, refs []*swarm.SecretReference) string {
	if as != nil && as.User != "" {
		if numeric(as.User) && as.User != "0" {
			return as.User
		}
	} else if as != nil {
		if user := t.engine.imageUser(ctx, as.Image); numeric(user) && user != "0" {
			return user
		}
	}
	if from.UID != nil && *from.UID != "0" {
		if from.GID != nil {
			return *from.UID + ":" + *from.GID
		}
		return *from.UID
	}
	if len(refs) > 0 && refs[0].File.UID != "0" {
		return refs[0].File.UID + ":" + refs[0].File.GID
	}
	return ""
}

// numeric reports whether a user is given by its id, or by its id and group.
func numeric(user string) bool {
	return user != "" && strings.Trim(user, "0123456789:") == ""
}

// imageUser returns the user of an image, or "" if the image is not here.
func (e engine) imageUser(ctx context.Context, image string) string {
	found, err := e.ImageInspect(ctx, image)
	if err != nil || found.Config == nil {
		return ""
	}
	return found.Config.User
}

// probeSecrets mounts every field of a version with the owner and mode that the
// service's own mount has, or is to have.
func probeSecrets(v rotation.Version, now view, from rotation.Placement) ([]*swarm.SecretReference, error) {
	at := map[string]string{} // field → where the service has it
	for name, field := range from.File {
		if value, ok := now.env(name); ok {
			at[field] = path.Clean(value)
		}
	}
	for p, field := range from.Path {
		at[field] = path.Clean(p)
	}
	var refs []*swarm.SecretReference
	for _, field := range slices.Sorted(maps.Keys(v.Objects)) {
		file := swarm.SecretReferenceFileTarget{UID: "0", GID: "0", Mode: fs.FileMode(0o444)}
		if ref := now.at(at[field]); at[field] != "" && ref != nil && ref.File != nil {
			file = *ref.File
		}
		file.Name = path.Join(probeDir, field)
		ref, err := reference(v, field, &file, file.Name, from)
		if err != nil {
			return nil, rotation.Classify(rotation.Unknown, "", err)
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// await waits until the one task of a probe has ended.
func (t *Target) await(ctx context.Context, id string, wake <-chan struct{}) (swarm.Task, error) {
	why := "it was not placed yet"
	for {
		tasks, err := t.engine.tasks(ctx, id)
		if err != nil && ctx.Err() == nil {
			return swarm.Task{}, err
		}
		for _, task := range tasks {
			if ended(task.Status.State) {
				return task, nil
			}
			why = fmt.Sprintf("its task is %s: %s %s", task.Status.State, task.Status.Message, task.Status.Err)
		}
		select {
		case <-ctx.Done():
			return swarm.Task{}, rotation.Classify(rotation.Unknown, "", fmt.Errorf("waiting for the probe: %s: %w", why, ctx.Err()))
		case <-wake:
		case <-time.After(t.Poll):
		}
	}
}

// answer reads the exit code of a probe, and what it printed.
func (t *Target) answer(ctx context.Context, service string, task swarm.Task) rotation.ProbeResult {
	if task.Status.ContainerStatus == nil || task.Status.State == swarm.TaskStateRejected {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: t.notRun(task)}
	}
	answer, ok := answerOf(task.Status.ContainerStatus.ExitCode)
	if !ok || task.Status.State != swarm.TaskStateComplete && task.Status.ContainerStatus.ExitCode == 0 {
		return rotation.ProbeResult{Answer: rotation.Inconclusive, Reason: t.notRun(task)}
	}
	result := rotation.ProbeResult{Answer: answer}
	printed, err := t.printed(ctx, service)
	if err != nil {
		t.Logger.Debug("reading what a probe printed", "error", err)
		result.Reason = "the probe's exit code says so; its output could not be read"
		return result
	}
	if printed.Answer == answer { // the exit code is the answer, always
		result = printed
	}
	return result
}

// notRun says why a probe has no answer.
func (t *Target) notRun(task swarm.Task) string {
	text := fmt.Sprintf("the probe did not run to its end: task is %s", task.Status.State)
	if task.Status.Err != "" {
		text += ": " + task.Status.Err
	}
	if c := task.Status.ContainerStatus; c != nil && c.ExitCode != 0 {
		text += ", exit code " + strconv.Itoa(c.ExitCode)
	}
	if task.Status.State == swarm.TaskStateRejected {
		text += fmt.Sprintf(" (is the image %q on that node?)", t.ProbeImage)
	}
	return text
}

// Sweep implements [rotation.Sweeper]. It removes what probes have left: the
// services and configs of the credential that are labelled as probes. The
// caller holds the lease, so that nobody waits for them any more.
func (t *Target) Sweep(ctx context.Context, credential string) error {
	err := t.sweep(ctx, credential, func(swarm.ServiceSpec) bool { return true })
	configs, listErr := t.engine.ConfigList(ctx, swarm.ConfigListOptions{})
	if listErr != nil {
		return errors.Join(err, fault(fmt.Errorf("looking for what probes left: %w", listErr)))
	}
	for _, c := range configs {
		if c.Spec.Labels[labelProbe] != "" && c.Spec.Labels[labelCredential] == credential {
			t.clean(ctx, "config "+c.Spec.Name, func(ctx context.Context) error { return t.engine.ConfigRemove(ctx, c.ID) })
		}
	}
	return err
}

// sweep removes the probes of a credential for which which is true.
func (t *Target) sweep(ctx context.Context, credential string, which func(swarm.ServiceSpec) bool) error {
	services, err := t.engine.services(ctx)
	if err != nil {
		return err
	}
	for _, s := range services {
		if !isProbe(s.Spec) || s.Spec.Labels[labelCredential] != credential || !which(s.Spec) {
			continue
		}
		if rmErr := t.engine.ServiceRemove(ctx, s.ID); rmErr != nil && !errdefs.IsNotFound(rmErr) {
			err = errors.Join(err, fault(fmt.Errorf("removing probe %q: %w", s.Spec.Name, rmErr)))
		}
	}
	return err
}
