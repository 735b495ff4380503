package rotationtest

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// AsItStarts restarts the server behind an endpoint three times, and asks it from its first moment
// on: before it knows who there is, what it answers says nothing against a version that is in
// force, nor against the administrator.
func AsItStarts(t *testing.T, b rotation.Backend, login rotation.Login, v rotation.Version, m rotation.Material, endpoint string, restart func()) {
	t.Helper()
	spec := b.ProbeSpec(v)
	spec.Endpoints = []string{endpoint}
	for range 3 {
		restart()
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			got := login(t.Context(), spec, m)
			st, err := b.Observe(t.Context(), v)
			if got.Answer == rotation.Dead || got.Answer == rotation.Unfit || err != nil && rotation.ClassOf(err) != rotation.Unknown || err == nil && st.Status == rotation.Absent {
				t.Fatalf("a server that starts: the version is %s (%s); the administrator is told %q, %v", got.Answer, got.Reason, st.Status, err)
			}
			if got.Answer == rotation.Alive && err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("after a minute the version is %s (%s); the administrator is told %q, %v", got.Answer, got.Reason, st.Status, err)
			}
		}
	}
}

// A Drafting backend makes its values itself.
type Drafting interface {
	rotation.Backend
	rotation.Drafter
}

// Armed brings a version to be accepted, without an expiry.
func Armed(t testing.TB, b Drafting, v rotation.Version, others ...rotation.Version) (rotation.Version, rotation.Material) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v, err := b.Identify(t.Context(), v, others)
	must(err)
	m, err := b.Draft(v)
	must(err)
	must(b.Arm(t.Context(), v, m, time.Time{}))
	return v, m
}
