package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A mark stands in the label keyturn.update of a service from the update that
// moves it to the end of the move. It is put by the same compare-and-swap, so
// that whoever ends the move, in whatever run, knows what to set back.
type mark struct {
	Was     *swarm.UpdateConfig `json:"was"`     // the update settings that were there
	Set     *swarm.UpdateConfig `json:"set"`     // those of the move
	Release string              `json:"release"` // what was shipped then, apart from our fields
}

// markOf reads the mark of a service. One that somebody has made unreadable is none.
func markOf(labels map[string]string) (k mark, ok bool) {
	text, ok := labels[labelUpdate]
	return k, ok && json.Unmarshal([]byte(text), &k) == nil && k.Set != nil
}

// put puts the mark on a service.
func (k mark) put(v *view) error {
	text, err := json.Marshal(k)
	if err == nil {
		v.label(labelUpdate, string(text))
	}
	return err
}

// settings returns the update settings for a move: the rollout's, and a stop at
// the first task that fails. "rollback" would bring back what somebody shipped
// over, too.
func settings(was *swarm.UpdateConfig, r rotation.Rollout) *swarm.UpdateConfig {
	u := orDefaults(was)
	u.Parallelism, u.Delay, u.FailureAction, u.MaxFailureRatio = r.Parallelism, r.Delay, swarm.UpdateFailureActionPause, 0
	if r.Order != "" {
		u.Order = r.Order
	}
	if r.Monitor > 0 {
		u.Monitor = r.Monitor
	}
	return &u
}

// orDefaults returns settings, or what Swarm does where there are none.
func orDefaults(u *swarm.UpdateConfig) swarm.UpdateConfig {
	if u == nil {
		return swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionPause,
			Monitor: 5 * time.Second, Order: swarm.UpdateOrderStopFirst}
	}
	return *u
}

// restored returns the update settings as they are without the move: what we
// set is what it was, and what somebody else has changed since is theirs.
func (k mark) restored(now *swarm.UpdateConfig) *swarm.UpdateConfig {
	switch {
	case now == nil:
		return nil
	case reflect.DeepEqual(now, k.Set):
		return k.Was
	}
	u, was := *now, orDefaults(k.Was)
	back(&u.Parallelism, k.Set.Parallelism, was.Parallelism)
	back(&u.Delay, k.Set.Delay, was.Delay)
	back(&u.FailureAction, k.Set.FailureAction, was.FailureAction)
	back(&u.Monitor, k.Set.Monitor, was.Monitor)
	back(&u.MaxFailureRatio, k.Set.MaxFailureRatio, was.MaxFailureRatio)
	back(&u.Order, k.Set.Order, was.Order)
	return &u
}

// back sets a value that is the one we set to the one that it was.
func back[T comparable](now *T, set, was T) {
	if *now == set {
		*now = was
	}
}

// settle takes the mark away and sets the update settings back. The updater
// ends its own watch over the tasks with that, and restarts nothing.
func (m *move) settle(ctx context.Context) error {
	for range tries {
		s, err := m.engine.service(ctx, m.service)
		if err != nil {
			return err
		}
		if s.job() {
			return nil // an update would run it again
		}
		now := viewOf(s.Spec)
		next := now.clone()
		if k, ok := markOf(now.Labels); ok {
			next.Update = k.restored(now.Update)
			delete(next.Labels, labelUpdate)
		}
		if m.returns() && next.Labels[labelRotation] == m.shifts[0].Rotation {
			m.sign(&next)
		}
		if maps.Equal(next.Labels, now.Labels) {
			return nil
		}
		spec, err := patch(s.raw, next)
		if err != nil {
			return err
		}
		if err = m.engine.update(ctx, s, spec); err == nil {
			return nil
		}
		if !errors.Is(err, errStale) {
			return fmt.Errorf("setting the update settings back: %w", err)
		}
	}
	return rotation.Classify(rotation.Unknown, "", fmt.Errorf("setting the update settings back: %w", errStale))
}

// returns reports whether the move takes the service back.
func (m *move) returns() bool {
	for _, s := range m.shifts {
		if !returns(s) {
			return false
		}
	}
	return true
}

// sign says on a service which rotation moved it. The way back leaves what was
// there before the rotation.
func (m *move) sign(v *view) {
	id := m.shifts[0].Rotation
	if m.returns() {
		b, err := beforeOf(m.shifts[0].Before)
		if err != nil || b == nil || b.Rotation == id {
			b = &before{}
		}
		id = b.Rotation
	}
	v.label(labelRotation, id)
}
