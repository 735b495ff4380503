package vault_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/testserver"
)

// TestFollowers names a cluster's followers first. OpenBao's answer by themselves, late: what
// was just made is there all the same, and so is what was just ended not; without a leader
// nothing is known.
func TestFollowers(t *testing.T) {
	t.Parallel()
	server := testserver.NewOpenBao(t, 3)
	f := newFixture(t, server)
	leader := server.Active(t)
	named := append(slices.Concat(server.URLs()[:leader], server.URLs()[leader+1:]), server.URLs()[leader])
	b := f.backend(func(s *vault.Settings) { s.Servers, s.AppRole.Probe = named, named })
	v0, good := f.armed(b, 100)
	late := 0
	for number := 1; number <= 3; number++ {
		v, m := f.armed(b, number)
		alone := f.byHand(nil) // what a follower says by itself
		if err := server.CallAt(t.Context(), (leader+1)%3, server.Token, http.MethodPost, "/v1/auth/approle/role/"+f.name+"/secret-id-accessor/lookup", map[string]string{"secret_id_accessor": alone.Accessor}, nil); err != nil {
			late++
		}
		if r := vault.Login(t.Context(), b.ProbeSpec(v), m); r.Answer != rotation.Alive {
			t.Errorf("version %d is %s (%s), want it alive; %+v", number, r.Answer, r.Reason, r.Endpoints)
		}
		if st, err := b.Observe(t.Context(), v); err != nil || st.Status != rotation.Armed {
			t.Errorf("version %d is %+v, %v, want it armed", number, st, err)
		}
		f.must(b.End(t.Context(), v, rotation.ToRetire))
		if st, err := b.Observe(t.Context(), v); err != nil || st.Status != rotation.Absent {
			t.Errorf("version %d is %+v, %v, want it absent", number, st, err)
		}
		if r := vault.Login(t.Context(), b.ProbeSpec(v), m); r.Answer != rotation.Dead {
			t.Errorf("version %d is %s (%s), want it dead; %+v", number, r.Answer, r.Reason, r.Endpoints)
		}
		if r := vault.Login(t.Context(), b.ProbeSpec(v0), good); r.Answer != rotation.Alive { // the count of refusals starts anew
			t.Errorf("after it the other one is %s (%s), want it alive; %+v", r.Answer, r.Reason, r.Endpoints)
		}
	}
	if late == 0 {
		t.Error("no follower was late: they are no witness")
	}
	for server.Sealed(t) < 2 {
		server.Seal(t)
	}
	if _, err := b.Observe(t.Context(), v0); err != nil && rotation.ClassOf(err) != rotation.Unknown {
		t.Errorf("while the leader goes Observe = %v, want that nothing is known, or success", err)
	}
	f.unled()
	if _, err := b.Observe(t.Context(), v0); rotation.ClassOf(err) != rotation.Unknown || !strings.Contains(fmt.Sprint(err), "no node leads") {
		t.Errorf("without a leader Observe = %v, want that nothing is known", err)
	}
}
