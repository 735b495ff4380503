package swarm_test

import (
	"errors"
	"testing"

	engineapi "github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Labels that a deployment took off our secrets are back after the next move;
// an adopted secret gets none. Hard problem 48.
func TestMoveLabelsAgain(t *testing.T) {
	s := newStage(t)
	plain, err := s.client.SecretCreate(s.Context(), engineapi.SecretSpec{Annotations: engineapi.Annotations{Name: s.credential + "_plain"}, Data: []byte("one")})
	s.must(err)
	v1 := rotation.Version{Credential: s.credential, Number: 1, Public: map[string]string{"username": "user_1"},
		Objects: map[string]rotation.Object{"password": {ID: plain.ID, Name: s.credential + "_plain"}}}
	v2 := s.put(2, "two")
	v2.State = rotation.Pending
	s.serve(v1, withReplicas(0))
	id := v2.Objects["password"].ID
	want := s.labels(id)
	strip := func() {
		t.Helper()
		now, _, err := s.client.SecretInspectWithRaw(s.Context(), id)
		s.must(err)
		now.Spec.Labels = map[string]string{"com.docker.stack.namespace": "shop"}
		s.must(s.client.SecretUpdate(s.Context(), id, now.Version, now.Spec))
	}
	want["com.docker.stack.namespace"] = "shop"

	strip()
	if err := errOf(s.target.Move(s.lost(), s.shift(v2, nil, nil, v1, v2))); !errors.Is(err, rotation.ErrLeaseLost) || len(s.labels(id)) != 1 {
		t.Errorf("Move without the lease = %v, labels %v, want ErrLeaseLost and no label put back", err, s.labels(id))
	}
	s.must(errOf(s.target.Move(s.ctx(), s.shift(v2, nil, nil, v1, v2))))
	if diff := cmp.Diff(want, s.labels(id)); diff != "" {
		t.Errorf("labels after a move (-want +got):\n%s", diff)
	}
	if got := s.labels(plain.ID); len(got) != 0 {
		t.Errorf("an adopted secret was labelled: %v", got)
	}
}

func (s *stage) labels(id string) map[string]string {
	s.Helper()
	found, _, err := s.client.SecretInspectWithRaw(s.Context(), id)
	s.must(err)
	return found.Spec.Labels
}
