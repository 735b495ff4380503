package rotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// telling is a target that replaces tasks and says what it would do.
type telling struct {
	*rotationtest.Target
	fails error
}

func (t telling) Describe(_ context.Context, places []rotation.Placement) (plans []rotation.ServicePlan, err error) {
	if t.fails != nil {
		return nil, t.fails
	}
	for _, p := range places {
		if !slices.ContainsFunc(plans, func(s rotation.ServicePlan) bool { return s.Service == p.Service }) {
			plans = append(plans, rotation.ServicePlan{Service: p.Service, Tasks: 3, About: 1500 * time.Millisecond})
		}
	}
	return plans, nil
}

// warning is a backend that knows something.
type warning struct{ rotation.Backend }

func (warning) Warnings(context.Context, string) ([]string, error) {
	return []string{"the probe goes to the administrator's host"}, nil
}

// planned is two credentials that one service reads.
func planned(w *rotationtest.World, fails error) (orders, stock *rotation.Standard) {
	t := telling{w.Target(rotation.Traits{}), fails}
	orders = w.Standard(warning{w.Drafted("orders")}, t, "orders", rotation.Placement{Service: "api"})
	stock = w.Standard(w.Drafted("stock"), t, "stock", rotation.Placement{Service: "api"}, rotation.Placement{Service: "web"})
	return orders, stock
}

func plan(t *testing.T, e *rotation.Engine, phase rotation.Phase, batch ...*rotation.Standard) rotation.Plan {
	t.Helper()
	p, err := e.Plan(t.Context(), phase, batch...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func engine(w *rotationtest.World) *rotation.Engine {
	return &rotation.Engine{Journal: w.Journal(), Now: w.Now}
}

// TestPlanOfABatch makes one plan of two credentials, with one hash whatever
// order they are named in, and every service once.
func TestPlanOfABatch(t *testing.T) {
	w := rotationtest.New()
	e := engine(w)
	orders, stock := planned(w, nil)
	p := plan(t, e, "", stock, orders)
	if got := plan(t, e, rotation.Prepare, orders, stock); got.Hash != p.Hash {
		t.Errorf("the hash is %s, and %s when the credentials are named in another order", p.Hash, got.Hash)
	}
	if alone := plan(t, e, "", orders); alone.Hash == p.Hash {
		t.Error("the plan of one credential has the hash of the batch")
	}
	var services []string
	for _, s := range p.Services {
		services = append(services, s.Service)
	}
	if len(p.Credentials) != 2 || p.Credentials[0].Credential != "orders" || !slices.Equal(services, []string{"api", "web"}) || !p.Replaces {
		t.Errorf("the plan is %+v, want orders and stock, and api and web once", p)
	}
	w.Advance(time.Hour)
	if later := plan(t, e, "", orders, stock); later.Hash != p.Hash {
		t.Error("the same plan has another hash an hour later")
	}
	b, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(b), `"overlap_ms":86400000`) || !strings.Contains(string(b), `"about_ms":1500`) {
		t.Errorf("as JSON, durations are no milliseconds (%v): %s", err, b)
	}
}

// TestPlanWarns says what the backend knows and what the policy costs.
func TestPlanWarns(t *testing.T) {
	w := rotationtest.New()
	orders, _ := planned(w, nil)
	orders.Policy.Strict = true
	orders.Target = w.Target(rotation.Traits{OneVersion: true})
	s := &rotationtest.Scenario{World: w, Journal: w.Journal()}
	s.Leaser = w.Leaser()
	if err := s.Adopt(rotation.Version{Credential: "orders", Number: 1, Identity: "orders"}); err != nil {
		t.Fatal(err)
	}
	p := plan(t, s.Engine(), "", orders)
	got := strings.Join(p.Credentials[0].Warnings, "\n")
	for _, want := range []string{"the probe goes to", "expiry: strict: services that still use version 1", "accept-gap: the target holds one value"} {
		if !strings.Contains(got, want) {
			t.Errorf("the warnings lack %q:\n%s", want, got)
		}
	}
	if p.Replaces {
		t.Error("a target that describes nothing replaces tasks")
	}
}

// TestPlanOfATargetThatCannotBeAsked names the services and says that no more
// can be told; the hash is another than that of a plan that knows.
func TestPlanOfATargetThatCannotBeAsked(t *testing.T) {
	w := rotationtest.New()
	knows, stock := planned(w, nil)
	cannot, _ := planned(w, errors.New("no answer"))
	p := plan(t, engine(w), "", cannot, stock)
	if !p.Replaces || len(p.Services) != 2 || !p.Services[0].Untold || !p.Services[1].Untold || len(p.Blocked) != 1 {
		t.Errorf("the plan is %+v, want two services of which nothing is told, and what is in the way", p)
	}
	if p.Hash == plan(t, engine(w), "", knows, stock).Hash {
		t.Error("a plan that knows nothing of its services has the hash of one that does")
	}
}

// TestPlanOfAPhaseOutOfItsTurn says what the phase itself would say.
func TestPlanOfAPhaseOutOfItsTurn(t *testing.T) {
	w := rotationtest.New()
	orders, _ := planned(w, nil)
	for phase, want := range map[rotation.Phase]string{"": "", rotation.Prepare: "", rotation.Cutover: "no rotation is open", rotation.Rollback: "no rotation is open"} {
		got := strings.Join(plan(t, engine(w), phase, orders).Blocked, "\n")
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("Plan(%q) is blocked by %q, want %q", phase, got, want)
		}
	}
}
