package swarm

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/versions"

	"github.com/keyturn/keyturn/internal/rotation"
)

// job describes the service that probes.
func (t *Target) job(ctx context.Context, v rotation.Version, from rotation.Placement) (swarm.ServiceSpec, error) {
	if t.ProbeImage == "" {
		return swarm.ServiceSpec{}, rotation.Errorf(rotation.Invalid, "set swarm.image", "no image for probes is configured")
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
	spec := t.probeSpec(v, rotation.RotationID(ctx))
	if t.forgets(ctx) {
		one := uint64(1)
		spec.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}}
	}
	standIn(&spec, place.Spec)
	c := spec.TaskTemplate.ContainerSpec
	if c.Secrets, err = probeSecrets(v, viewOf(place.Spec), from); err != nil {
		return spec, err
	}
	c.User = t.probeUser(ctx, place.Spec.TaskTemplate.ContainerSpec, from, c.Secrets)
	return spec, nil
}

// forgets reports whether the Swarm keeps no task that has ended, but for those of jobs:
// --task-history-limit 0. It is asked once.
func (t *Target) forgets(ctx context.Context) bool {
	t.asked.Do(func() {
		info, err := t.engine.Info(ctx)
		if err != nil || info.Swarm.Cluster == nil {
			return
		}
		limit := info.Swarm.Cluster.Spec.Orchestration.TaskHistoryRetentionLimit
		t.forgetful = limit != nil && *limit == 0
	})
	return t.forgetful
}

// probeSpec is a service of one task that is never started again. It is no job: engines
// before 24 keep the tasks of a job for ever when its service is removed (moby issue 44312).
func (t *Target) probeSpec(v rotation.Version, id string) swarm.ServiceSpec {
	l, one := labels(v, id), uint64(1)
	l[labelProbe] = "yes"
	c := &swarm.ContainerSpec{Image: t.ProbeImage, Args: ProbeArgs(), Labels: l, ReadOnly: true, CapabilityDrop: []string{"ALL"}}
	if versions.GreaterThanOrEqualTo(t.engine.ClientVersion(), "1.46") { // older engines drop it without a word
		c.Privileges = &swarm.Privileges{NoNewPrivileges: true}
	}
	return swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: fmt.Sprintf("keyturn-probe-%016x", rand.Uint64()), Labels: l},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: c,
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionNone},
			LogDriver:     &swarm.Driver{Name: "json-file"},
		},
	}
}

// standIn puts a probe where a service is: its networks, nodes, groups and names.
func standIn(probe *swarm.ServiceSpec, s swarm.ServiceSpec) {
	to, was := &probe.TaskTemplate, s.TaskTemplate
	if to.Networks = slices.Clone(was.Networks); len(to.Networks) == 0 {
		//lint:ignore SA1019 services that were made long ago have their networks there
		to.Networks = slices.Clone(s.Networks)
	}
	for i := range to.Networks {
		to.Networks[i].Aliases = nil // clients of the service must not find the probe
	}
	if was.Placement != nil {
		p := *was.Placement
		p.MaxReplicas, p.Platforms = 0, nil
		to.Placement = &p
	}
	if c := was.ContainerSpec; c != nil {
		to.ContainerSpec.Groups, to.ContainerSpec.Hosts, to.ContainerSpec.DNSConfig = c.Groups, c.Hosts, c.DNSConfig
	}
}

// probeUser returns who the probe runs as: the user of the service, of its
// image, or of the placement. A name means nothing in the probe's image, and
// root can read what others own only with capabilities that a probe does not
// have; then it is the owner of the mounted files. It is never the user of the
// probe's own image, for whom nothing is mounted.
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
	return "0"
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
