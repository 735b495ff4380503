package rotation

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// probe tries a version once from every place that reads it, at the same time.
// A credential that no service reads is tried from the target itself. Where refusals
// are to be spared, the first place goes ahead.
func (s *Standard) probe(ctx context.Context, v Version) ProbeResult {
	places := s.places()
	results := make([]ProbeResult, len(places))
	spec := s.Backend.ProbeSpec(v)
	var wg sync.WaitGroup
	for i, place := range places {
		wg.Go(func() { results[i] = s.Target.Probe(ctx, v, spec, place) })
		if i > 0 || !spec.Sparing {
			continue
		}
		wg.Wait()
		if results[0].Answer == Dead {
			places, results = places[:1], results[:1]
			break
		}
	}
	wg.Wait()
	var all ProbeResult
	for i, r := range results {
		all.ran = all.ran || len(r.Endpoints) > 0
		all.cut = all.cut || !slices.ContainsFunc(r.Endpoints, func(e EndpointResult) bool { return e.Answer == Alive })
		if len(r.Endpoints) == 0 {
			all.Endpoints = append(all.Endpoints, EndpointResult{Endpoint: places[i].Service, Answer: r.Answer, Reason: r.Reason})
			continue
		}
		for _, e := range r.Endpoints {
			if places[i].Service != "" {
				e.Endpoint += " from " + places[i].Service
			}
			all.Endpoints = append(all.Endpoints, e)
		}
	}
	return all.Summarize()
}

func (s *Standard) places() []Placement {
	if len(s.Placements) == 0 {
		return []Placement{{Credential: s.Name}}
	}
	return s.Placements
}

// probeUntil tries until the version is alive or the time is over. A refusal is
// tried again too, once a second: replicas lag.
func (s *Standard) probeUntil(ctx context.Context, v Version) ProbeResult {
	limit, every := s.Policy.ProbeTimeout, s.Policy.ProbeEvery
	if limit == 0 {
		limit = 30 * time.Second
	}
	if every == 0 {
		every = time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last ProbeResult
	for tries, refusals := 0, 0; ; tries++ {
		r := s.probe(ctx, v)
		if r.Answer == Alive {
			return r
		}
		if ctx.Err() == nil || tries == 0 {
			last = r // an answer that was cut off says less than the one before
		}
		if r.Answer == Dead || r.Answer == Unfit {
			refusals++
		}
		if r.Answer == Dead && s.Backend.ProbeSpec(v).Sparing {
			return r
		}
		if refusals >= 3 || pause(ctx, every) != nil {
			return last
		}
	}
}

// both tries two versions at the same time, each until it is alive.
func (s *Standard) both(ctx context.Context, next, last Version) (n, l ProbeResult) {
	var wg sync.WaitGroup
	wg.Go(func() { n = s.probeUntil(ctx, next) })
	if last.Number != 0 {
		wg.Go(func() { l = s.probeUntil(ctx, last) })
	}
	wg.Wait()
	return n, l
}

// faded reports whether a version has ended by itself: it is no control of anything,
// and no version to go back to.
func (s *Standard) faded(ctx context.Context, v Version) bool {
	_, fading := s.Backend.(Fading)
	_, revocable := s.Backend.(Revocable)
	if !fading && !revocable || v.Number == 0 {
		return false
	}
	standing, err := s.Backend.Observe(ctx, v)
	return err == nil && standing.Status == Ended
}

// lastOf returns the version before, unless it has ended by itself or was revoked: then
// there is none that the next one could be measured by.
func (s *Standard) lastOf(ctx context.Context, c Credential) Version {
	last := c.Last()
	if revoked(c, last) || s.faded(ctx, last) {
		return Version{}
	}
	return last
}

// validateProbe is the verdict on the pending version. It fails validation if
// it is refused or unfit while the current one is accepted the same way. What
// cannot be told is not a failure, with one exception: if the administrator
// reaches the backend, the probes ran where the services are, and neither
// version was accepted by any endpoint from there, the way is at fault, and taking
// the new version back touches no service (unless it is mounted beside the old one).
// Where some endpoints accept them, the others are down: that is waited for.
func (s *Standard) validateProbe(ctx context.Context, c Credential) (Result, error) {
	if t := s.Target.Traits(); t.Unprobeable || t.OneVersion { // putting is the cutover: it is nowhere yet
		return Result{Evidence: map[string]any{"probe": "not provable: write-only"}}, nil
	}
	if s.gapped() {
		return s.probeInService(ctx, c, Validate)
	}
	next, last := c.Next(), s.lastOf(ctx, c)
	n, l := s.both(ctx, next, last)
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	if n.Answer == Inconclusive && l.Answer == Alive {
		l = s.probe(ctx, last) // it answered a while ago: does it still?
	}
	r := Result{Evidence: map[string]any{"new": n, "old": l}}
	switch {
	case n.Answer == Alive && (last.Number == 0 || l.Answer == Alive):
		return r, nil
	case n.Answer == Alive:
		return r, Errorf(Unknown, "run it again when the services' own logins work: keyturn validate "+c.Name,
			"the new version works, but the current one does not (%s): there is no way back", l.Reason)
	case (n.Answer == Dead || n.Answer == Unfit) && l.Answer == Alive:
		return r, Errorf(Failed, "nothing was restarted because of it", "version %d is %s where the current one works: %s", next.Number, n.Answer, n.Reason)
	}
	_, err := s.Backend.Observe(ctx, next)
	beside, _ := c.Open.happened(Beside, next.Number)
	if err == nil && !beside && n.ran && n.cut && (last.Number == 0 || l.cut) {
		return r, Errorf(Failed, "look at the networks of the services and the probe endpoints",
			"neither version can be tried from where the services are, though the backend answers its administrator: %s", n.Reason)
	}
	return r, Errorf(Unknown, "nothing was changed; run it again when the backend answers: keyturn validate "+c.Name,
		"cannot tell whether version %d works: %s", next.Number, n.Reason)
}

func (s *Standard) compare(ctx context.Context, c Credential) (Result, error) {
	comparer, ok := s.Backend.(Comparer)
	last := c.Last()
	if !ok || last.Number == 0 || s.Target.Traits().OneVersion {
		return Result{}, nil
	}
	return Result{}, comparer.Compare(ctx, c.Next(), last)
}

// cutoverProbe tries both versions once more: days may have passed.
func (s *Standard) cutoverProbe(ctx context.Context, c Credential) (Result, error) {
	moved, _ := c.Open.happened(Move, c.Open.To)
	if s.Target.Traits().Unprobeable || moved {
		return Result{Observed: true}, nil
	}
	if s.gapped() {
		return s.probeInService(ctx, c, Cutover)
	}
	next, last := c.Next(), s.lastOf(ctx, c)
	n, l := s.both(ctx, next, last)
	r := Result{Evidence: map[string]any{"new": n, "old": l}}
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case n.Answer == Alive && (last.Number == 0 || l.Answer == Alive):
		return r, nil
	case (n.Answer == Dead || n.Answer == Unfit) && (last.Number == 0 || l.Answer == Alive):
		return r, Errorf(Failed, "start again: keyturn prepare "+c.Name, "version %d is %s: %s", next.Number, n.Answer, n.Reason)
	case n.Answer == Alive:
		return r, Errorf(Unknown, "nothing was restarted; run it again: keyturn cutover "+c.Name,
			"the current version does not work (%s): there is no way back", l.Reason)
	}
	return r, Errorf(Unknown, "nothing was restarted; run it again: keyturn cutover "+c.Name,
		"cannot tell whether version %d works: %s", next.Number, n.Reason)
}

// probeShown tries the version that services were moved to, as the one in service: they
// must show it.
func (s *Standard) probeShown(ctx context.Context, c Credential) (Result, error) {
	next := c.Next()
	next.State = Current
	p := s.probeUntil(ctx, next)
	r := Result{Evidence: map[string]any{"new": p}}
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case p.Answer != Alive:
		return r, Errorf(Unknown, "", "services were moved to version %d, and not seen to show it: %s (%s); the way back is open: keyturn rollback %s", next.Number, p.Answer, p.Reason, c.Name)
	}
	return r, nil
}

// probeLast proves that the old version works before services go back to it.
func (s *Standard) probeLast(ctx context.Context, c Credential) (Result, error) {
	last := c.Last()
	if s.Target.Traits().Unprobeable || last.Number == 0 {
		return Result{}, nil
	}
	last.State = Previous // services may have left it, all or some
	p := s.probeUntil(ctx, last)
	r := Result{Evidence: map[string]any{"old": p}}
	if p.Answer != Alive {
		return r, Errorf(Unknown, "the services were left where they are; look at the backend, then: keyturn rollback "+c.Name,
			"version %d, to go back to, is %s: %s", last.Number, p.Answer, p.Reason)
	}
	return r, nil
}

// prove tries the ended version a last time: it must be refused at every
// endpoint where the current one is accepted, and nothing may be left of it in
// the administrator's view.
func (s *Standard) prove(ctx context.Context, c Credential) (Result, error) {
	last, next := c.Last(), c.Next()
	if _, done := c.Open.happened(Prove, last.Number); done || last.Number == 0 {
		return Result{Observed: true}, nil
	}
	standing, err := s.Backend.Observe(ctx, last)
	if err != nil {
		return Result{}, err
	}
	if standing.Status != Ended && standing.Status != Absent || len(standing.Uses) > 0 {
		return Result{}, Errorf(Unknown, "", "version %d is %s for the administrator, with %d uses", last.Number, standing.Status, len(standing.Uses))
	}
	r := Result{Evidence: map[string]any{"administrator": standing.Status, "sessions": 0}}
	if s.Target.Traits().Unprobeable || s.Target.Traits().OneVersion {
		r.Evidence["refused"] = "not provable: the value is kept nowhere"
		return r, nil
	}
	gone, err := s.gone(ctx, last)
	if err != nil {
		return Result{}, err
	}
	var old, control ProbeResult
	var wg sync.WaitGroup
	if !gone {
		wg.Go(func() { old = s.probe(ctx, last) })
	}
	wg.Go(func() { control = s.probeUntil(ctx, next) })
	wg.Wait()
	r.Evidence["refused"], r.Evidence["control"] = old, control
	if gone {
		r.Evidence["refused"] = "not provable: somebody removed the objects that held the value"
		if control.Answer != Alive {
			return r, Errorf(Unknown, "run it again: keyturn cleanup "+c.Name, "the current version is %s: %s", control.Answer, control.Reason)
		}
		return r, nil
	}
	if old.Answer == Alive {
		return r, fmt.Errorf("version %d is ended and still accepted: %s", last.Number, endpoints(old))
	}
	if old.Answer == Dead && control.Answer == Dead && (revoked(c, next) || s.faded(ctx, next)) {
		r.Evidence["control"] = "not provable: the version after it has ended, too"
		return r, nil
	}
	if old.Answer != Dead || control.Answer != Alive {
		return r, Errorf(Unknown, "run it again: keyturn cleanup "+c.Name,
			"no proof that version %d is dead: it is %s (%s), the current one %s", last.Number, old.Answer, old.Reason, control.Answer)
	}
	return r, nil
}

// gone reports whether an object of a version that is on record is there no
// more: then nobody can try the version again, and the administrator's view stands.
func (s *Standard) gone(ctx context.Context, v Version) (bool, error) {
	h, err := s.Target.Observe(ctx, v)
	for field := range v.Objects {
		if _, there := h.Objects[field]; err == nil && !there {
			return true, nil
		}
	}
	return false, err
}

func endpoints(r ProbeResult) string {
	out := ""
	for _, e := range r.Endpoints {
		out += fmt.Sprintf("%s %s; ", e.Endpoint, e.Answer)
	}
	return out
}
