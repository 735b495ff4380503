package rotationtest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// The fakes keep the contract that real backends must keep.
func TestFakesKeepTheContract(t *testing.T) {
	shapes := map[string]func(*rotationtest.World) rotation.Backend{
		"drafted":   func(w *rotationtest.World) rotation.Backend { return w.Drafted("db") },
		"minted":    func(w *rotationtest.World) rotation.Backend { return w.Minted("db") },
		"ordered":   func(w *rotationtest.World) rotation.Backend { return w.Ordered("db") },
		"activated": func(w *rotationtest.World) rotation.Backend { return w.Activated("db") },
		"replacing": func(w *rotationtest.World) rotation.Backend { return w.Replacing("db") },
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			rotationtest.Contract(t, func(t *testing.T) rotationtest.Setup {
				w := rotationtest.New()
				w.Advance(time.Since(w.Now())) // the contract speaks of real times
				setup := rotationtest.Setup{Backend: shape(w), Credential: "db", Login: w.Login("db"),
					Changes: func(*testing.T) string { return strings.Join(w.Effects(), "\n") },
					Session: func(_ *testing.T, v rotation.Version, _ rotation.Material) func() bool {
						w.Session("db", v.Identity, "client")
						return func() bool { return w.Sessions("db", v.Identity) > 0 }
					},
					Break: map[string]func(*testing.T) func(){"down": func(*testing.T) func() {
						w.Down("db", true)
						return func() { w.Down("db", false) }
					}},
				}
				if name == "replacing" {
					setup.Session = nil // the world tells sessions apart by the login
				}
				return setup
			})
		})
	}
}

// A backend that breaks a clause fails the contract's part for it: the clause
// is not empty. The broken backend is tried as a test of its own would.
func TestTheWorldSeesBreaches(t *testing.T) {
	ctx := context.Background()
	for name, breach := range map[string]func(*rotationtest.World, rotation.Version){
		"the only working version is ended": func(w *rotationtest.World, v rotation.Version) {
			_ = w.Drafted("db").End(ctx, v, rotation.ToRetire)
		},
		"a number is armed with another value": func(w *rotationtest.World, v rotation.Version) {
			m, _ := w.Drafted("db").Draft(v)
			_ = w.Drafted("db").Arm(ctx, v, m, w.Now())
		},
		"its time runs out": func(w *rotationtest.World, v rotation.Version) {
			_ = w.Drafted("db").Expire(ctx, v, w.Now().Add(10))
			w.Advance(20)
		},
		"services read what is not stored": func(w *rotationtest.World, v rotation.Version) {
			v.Number = 9
			w.DeployOld("api", v)
		},
		"an unknown service is moved": func(w *rotationtest.World, v rotation.Version) {
			_, _ = w.Target(rotation.Traits{}, "password").Move(ctx, []rotation.Shift{{Placement: rotation.Placement{Credential: "db", Service: "nobody"}, Main: v}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := rotationtest.New()
			w.Service("api", 2)
			v := w.Running("db", "db_a", []string{"password"}, "api")
			if err := w.Faults(); err != nil {
				t.Fatalf("before: %v", err)
			}
			breach(w, v)
			if err := w.Faults(); err == nil {
				t.Errorf("nobody saw it: %v", w.Effects())
			}
		})
	}
}

func ExampleWorld_Expect() {
	w := rotationtest.New()
	b := w.Drafted("db")
	w.Expect(rotationtest.Plan{Call: "observe", How: rotationtest.LoseBefore})
	_, err := b.Observe(context.Background(), rotation.Version{Credential: "db", Number: 1, Identity: "db_a"})
	fmt.Println(err, rotation.ClassOf(err) == rotation.Unknown)
	// Output: observe: no answer true
}
