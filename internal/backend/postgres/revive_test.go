package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
)

// TestARevivedLoginIsDisarmedAgain: a password that somebody gives an adopted
// login after its end is cleared by the next phase, and reported; a plan
// changes nothing.
func TestARevivedLoginIsDisarmedAgain(t *testing.T) {
	f := adopted(t)
	b, ctx := f.backend(), context.Background()
	lock := func(credential string) {
		t.Helper()
		unlock, err := b.Lock(ctx, credential)
		if err != nil {
			t.Fatal(err)
		}
		if err := unlock(ctx); err != nil {
			t.Error(err)
		}
	}
	one, err := b.Adopt(ctx, version(1))
	if err != nil {
		t.Fatal(err)
	}
	lock("orders-db")
	if r := f.probe(b, one, material(oldPassword)); r.Answer != rotation.Alive {
		t.Fatalf("before its end the adopted login is %+v, want alive", r)
	}
	two, _ := f.prepared(b, 2, one)
	if err := b.End(ctx, one, rotation.ToRetire); err != nil {
		t.Fatal(err)
	}
	f.log.Reset()
	two.State = rotation.Current
	cred := rotation.Credential{Name: "orders-db", Versions: []rotation.Version{one, two}}
	for _, revive := range []string{"password 'found'", "login password 'found' valid until 'infinity'"} {
		f.exec(f.database, "alter role "+f.role+" "+revive)
		if err := b.Preflight(ctx, cred); err != nil {
			t.Errorf("Preflight: %v", err)
		}
		lock("other-db")
		if s := f.standing(b, one); s.Status == rotation.Ended || f.log.Len() > 0 {
			t.Fatalf("before the phase: %+v, log %q, want it as somebody left it", s, f.log)
		}
		if _, err := b.Adopt(ctx, version(1)); rotation.ClassOf(err) != rotation.Refused {
			t.Errorf("Adopt = %v, want refused: the next phase would end it", err)
		}
		f.log.Reset()
		lock("orders-db")
		if s := f.standing(b, one); s.Status != rotation.Ended {
			t.Errorf("after %q and a phase: %+v, want ended", revive, s)
		}
		if !strings.Contains(f.log.String(), "level=WARN") || !strings.Contains(f.log.String(), "login="+f.role+" version=1") {
			t.Errorf("after %q the log says %q, want a warning that names the login", revive, f.log)
		}
		f.log.Reset()
		lock("orders-db")
		if f.log.Len() > 0 {
			t.Errorf("a login that is disarmed is told of: %s", f.log)
		}
	}
}
