package secret_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/secret"
)

// TestSourceProblem says what is wrong with a place, as what follows its name.
func TestSourceProblem(t *testing.T) {
	for s, want := range map[secret.Source]string{{}: "has no place", {Env: "A", File: "/b"}: "has two places", {Env: "A"}: "", {File: "/b"}: ""} {
		if tip, problem := s.Problem(); problem != want || (tip == "") != (want == "") {
			t.Errorf("%+v: %q, with the tip %q, want %q", s, problem, tip, want)
		}
	}
}
