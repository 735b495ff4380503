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
	// What ends by itself is due before that, as its record says.
	if s, ok := c.Settings.(interface {
		DueAt(rotation.Version) time.Time
	}); ok {
		if v, ok := on.In(rotation.Current); ok {
			if own := s.DueAt(v); !own.IsZero() && own.Before(at) {
				at = own
			}
		}
	}
	return at
}

// wanted reports whether the system of a credential wants the version in service to be
// followed now. One that cannot be asked says nothing: the time on the record stands.
func (w *wiring) wanted(ctx context.Context, c rotation.Credential) bool {
	p, ok := w.procs[c.Name]
	if !ok {
		return false
	}
	r, ok := p.Backend.(rotation.Renewer)
	v, current := c.In(rotation.Current)
	if !ok || !current {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	at, err := r.RenewAt(ctx, v)
	if err != nil {
		w.app.log.WarnContext(ctx, "asking when a version is to be renewed; the time on the record stands", "credential", c.Name, "error", err)
		return false
	}
	return !at.IsZero() && !w.engine.Now().Before(at)
}

// renewLimit bounds the asking of one system.
const renewLimit = 30 * time.Second

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
