package cli

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
)

// dueAt is when a credential is due: so long after its last success, in hours and
// not in days of a calendar, and earlier by a part of the jitter. That part is
// the same for everybody who asks. However many times were missed, it is due once.
func dueAt(c config.Credential, on rotation.Credential) time.Time {
	if on.LastSuccess.IsZero() {
		return time.Time{}
	}
	at := on.LastSuccess.Add(c.Every)
	if c.Jitter > 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(c.Name))
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(on.LastSuccess.UnixMilli())))
		at = at.Add(-time.Duration(h.Sum64() % uint64(c.Jitter)))
	}
	return at
}

// credential returns the configuration of one.
func (w *wiring) credential(name string) config.Credential {
	i := slices.IndexFunc(w.cfg.Credentials, func(c config.Credential) bool { return c.Name == name })
	if i < 0 {
		return config.Credential{Name: name}
	}
	return w.cfg.Credentials[i]
}

// open reports whether a cutover of the credential may begin now.
func (w *wiring) open(name string) bool {
	now := w.engine.Now()
	return !config.Opens(w.credential(name).Windows, now).After(now)
}

// closedWindow has a cutover wait for the windows of a batch, unless it is under
// way, or an emergency.
func (w *wiring) closedWindow(ctx context.Context, phase rotation.Phase, group []string, f phaseFlags) (rotation.Summary, bool, error) {
	if phase != rotation.Cutover || f.emergency || !blank(f.glass) {
		return rotation.Summary{}, false, nil
	}
	now := w.engine.Now()
	until := now
	for _, name := range group {
		if at := config.Opens(w.credential(name).Windows, now); at.After(until) {
			until = at
		}
	}
	if !until.After(now) {
		return rotation.Summary{}, false, nil
	}
	ledger, err := w.ledger(ctx)
	if err != nil {
		return rotation.Summary{}, false, err
	}
	sum := rotation.Summary{Phase: phase, Outcome: rotation.Waiting, For: "a window", Until: until, Hint: "or do not wait: --emergency"}
	for _, name := range group {
		c := ledger.Credential(name)
		if c.Open == nil || c.Open.Phase != rotation.Validate || !c.Open.Complete {
			return rotation.Summary{}, false, nil // it is under way, or its turn has not come
		}
		sum.Rotation = c.Open.ID
		sum.Credentials = append(sum.Credentials, rotation.PositionOf(c))
	}
	return sum, true, nil
}
