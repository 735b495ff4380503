package swarm_test

import (
	"errors"
	"testing"

	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// A service that is left alone on purpose and runs nothing is in nobody's way,
// but keeps what its spec names; with a task it is a use as any other, and so
// is one that is ignored without a reason.
func TestIdleUse(t *testing.T) {
	s := newStage(t)
	v1 := s.put(1, "one")
	name := s.credential + "_nightly"
	_, err := s.client.ServiceCreate(s.Context(), s.spec(name, v1, withImage(imagePlain), withReplicas(0)), engineapi.ServiceCreateOptions{})
	s.must(err)
	uses := func(want ...rotation.Use) {
		t.Helper()
		h, err := s.target.Observe(s.ctx(), v1)
		s.must(err)
		for i := range h.Uses {
			h.Uses[i].Detail = ""
			if h.Uses[i].Kind == "task" {
				h.Uses[i].Name = ""
			}
		}
		if diff := cmp.Diff(want, h.Uses); diff != "" {
			t.Errorf("uses (-want +got):\n%s", diff)
		}
	}
	uses(rotation.Use{Kind: "spec", Name: name})
	s.layout.Ignore = []swarm.Ignored{{Service: name}}
	s.retarget()
	uses(rotation.Use{Kind: "spec", Name: name})
	s.layout.Ignore[0].Reason = "reads it at night only"
	s.retarget()
	uses(rotation.Use{Kind: "spec", Name: name, Idle: true})
	if err := s.target.Remove(s.ctx(), v1); !errors.Is(err, rotation.ErrInUse) {
		t.Errorf("Remove of what an idle service names = %v, want ErrInUse", err)
	}

	s.update(name, func(spec *engineapi.ServiceSpec) { *spec.Mode.Replicated.Replicas = 1 })
	s.settled(name)
	uses(rotation.Use{Kind: "spec", Name: name}, rotation.Use{Kind: "previous-spec", Name: name}, rotation.Use{Kind: "task"})
}

// A secret that has the name which the next version would have is not ours
// because of that. Hard problem 15.
func TestForeignName(t *testing.T) {
	s := newStage(t)
	name := s.base() + "_v2"
	for what, labels := range map[string]map[string]string{
		"without a label":        nil,
		"of another version":     {"keyturn.credential": s.credential, "keyturn.version": "3"},
		"of another credential ": {"keyturn.credential": s.credential + "-other", "keyturn.version": "2"},
	} {
		made, err := s.client.SecretCreate(s.Context(), engineapi.SecretSpec{Annotations: engineapi.Annotations{Name: name, Labels: labels}, Data: []byte("theirs")})
		s.must(err)
		v := rotation.Version{Credential: s.credential, Number: 2}
		if h, err := s.target.Observe(s.ctx(), v); err != nil || len(h.Objects) > 0 {
			t.Errorf("Observe of a secret %s = %+v, %v, want that it is not ours", what, h, err)
		}
		v.Objects = map[string]rotation.Object{"password": {Name: name}}
		if err := s.target.Remove(s.ctx(), v); err != nil {
			t.Errorf("Remove beside a secret %s = %v", what, err)
		}
		if _, _, err := s.client.SecretInspectWithRaw(s.Context(), made.ID); err != nil {
			t.Errorf("a secret %s was removed: %v", what, err)
		}
		s.must(s.client.SecretRemove(s.Context(), made.ID))
	}
}

// A secret that was made again under the name of one that is gone is removed
// if it bears our labels.
func TestRemoveMadeAgain(t *testing.T) {
	s := newStage(t)
	for _, ours := range []bool{true, false} {
		v := s.put(1, "one")
		s.must(s.client.SecretRemove(s.Context(), v.Objects["password"].ID))
		spec := engineapi.SecretSpec{Annotations: engineapi.Annotations{Name: v.Objects["password"].Name}, Data: []byte("one")}
		if ours {
			spec.Labels = map[string]string{"keyturn.credential": s.credential, "keyturn.version": "1"}
		}
		made, err := s.client.SecretCreate(s.Context(), spec)
		s.must(err)
		s.must(s.target.Remove(s.ctx(), v))
		_, _, err = s.client.SecretInspectWithRaw(s.Context(), made.ID)
		if gone := err != nil; gone != ours {
			t.Errorf("a secret made again, with our labels %v, was removed: %v", ours, gone)
		}
		if err == nil {
			s.must(s.client.SecretRemove(s.Context(), made.ID))
		}
	}
}

// The task of a probe is no use, also when its service is gone before it.
func TestProbeTaskIsNoUse(t *testing.T) {
	s := newStage(t)
	v := s.put(1, "one")
	spec := s.spec(s.credential+"_probe", v, withImage(imagePlain))
	spec.TaskTemplate.ContainerSpec.Labels = map[string]string{"keyturn.probe": "yes"}
	made, err := s.client.ServiceCreate(s.Context(), spec, engineapi.ServiceCreateOptions{})
	s.must(err)
	s.settled(spec.Name)
	h, err := s.target.Observe(s.ctx(), v)
	s.must(err)
	if kinds := kindsOf(h); !cmp.Equal(kinds, map[string]int{"spec": 1}) {
		t.Errorf("uses = %v, want no task", kinds)
	}
	s.must(s.client.ServiceRemove(s.Context(), made.ID))
}
