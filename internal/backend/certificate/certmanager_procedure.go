package certificate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A triggered rotation has its cutover made by cert-manager, which issues and puts in place
// at once: it can be looked at before and after, and not be taken back. Its cleanup is
// the usual one.
type triggered struct {
	*rotation.Standard
	m *Managed
}

var (
	_ rotation.Procedure  = triggered{}
	_ rotation.Guard      = triggered{}
	_ rotation.Overlapper = triggered{}
	_ rotation.Revoker    = triggered{}
)

// Procedure implements [rotation.Proceeder].
func (m *Managed) Procedure(s *rotation.Standard) rotation.Procedure { return triggered{s, m} }

// Ways implements [rotation.Placed].
func (m *Managed) Ways() map[rotation.Phase][]rotation.Way {
	return map[rotation.Phase][]rotation.Way{
		rotation.Prepare:  {{Does: "looks, and changes nothing", Effect: "restarts nothing"}},
		rotation.Cutover:  {{Does: "cert-manager issues " + m.manager.name() + " again, and overwrites its Secret", Effect: "restarts nothing; no way back"}},
		rotation.Rollback: {{Does: "gives up what was prepared; once cert-manager has issued there is no way back", Effect: "restarts nothing"}},
		rotation.Cleanup:  {{Does: "shows that the certificate before is served nowhere; it is not revoked", Effect: "restarts nothing"}},
	}
}

// Steps implements [rotation.Procedure].
func (t triggered) Steps(p rotation.Phase) (before, after []rotation.Step) {
	switch p {
	case rotation.Prepare:
		usual, _ := t.Standard.Steps(p)
		return slices.DeleteFunc(usual, func(s rotation.Step) bool { return s.Name != "preflight" && s.Name != "identify" }), nil
	case rotation.Validate:
		return []rotation.Step{{Name: "served", On: rotation.LastVersion, Do: t.served}}, nil
	case rotation.Cutover:
		return []rotation.Step{
			{Name: "declared", Do: t.declared},
			{Name: "trigger", Effect: rotation.Activate, Do: t.trigger, Undo: t.callOff},
			{Name: "issued", Do: t.issued},
		}, []rotation.Step{{Name: "shown", Do: t.shown}}
	case rotation.Rollback:
		return []rotation.Step{{Name: "way back", On: rotation.LastVersion, Do: t.noWayBack}}, nil
	}
	return t.Standard.Steps(p)
}

// Shifts implements [rotation.Procedure]: services read the Secret, whatever is in it.
func (triggered) Shifts(rotation.Phase, rotation.Credential) (rotation.Target, []rotation.Shift) {
	return nil, nil
}

// Settle implements [rotation.Procedure]: prepare leaves nothing behind.
func (triggered) Settle(context.Context, rotation.Credential) (rotation.Verdict, error) {
	return rotation.Keep, nil
}

// served looks whether what cert-manager has issued today is served everywhere: else what is
// seen after the cutover would prove nothing. What is dead already is no measure.
func (t triggered) served(ctx context.Context, _ rotation.Credential) (rotation.Result, error) {
	var p rotation.ProbeResult
	s, err := t.m.state(ctx)
	if err != nil {
		return rotation.Result{}, err
	}
	if s.issued == nil {
		return rotation.Result{Evidence: map[string]any{"served": "cert-manager has issued nothing yet"}}, nil
	}
	dead, err := t.m.ended(ctx, s.issued)
	if err != nil || dead != "" {
		return rotation.Result{Evidence: map[string]any{"served": "no measure: " + dead}}, err
	}
	today := s.on(rotation.Version{Credential: t.Name, State: rotation.Current})
	trial := t.m.trial(ctx, today, s.issued, s)
	err = t.m.until(ctx, t.patience(), func(ctx context.Context) (bool, error) {
		p = trial.all(ctx, t.m.settings.Probe)
		return p.Answer == rotation.Alive, nil
	})
	r := rotation.Result{Evidence: map[string]any{"served": p, publicRevision: s.Status.Revision}}
	switch {
	case err != nil:
		return r, err
	case p.Answer != rotation.Alive:
		return r, unknown("nothing was changed; look at probe: and at what serves there, then run it again: keyturn validate "+t.Name,
			"revision %d, which cert-manager has issued, is not seen to be served: %s", s.Status.Revision, p.Reason)
	}
	return r, nil
}

// patience is how long a look may take to find what should be there already.
func (t triggered) patience() time.Duration { return min(t.m.wait(), 30*time.Second) }

// declared is preflight once more: days may have passed.
func (t triggered) declared(ctx context.Context, c rotation.Credential) (rotation.Result, error) {
	return rotation.Result{}, t.m.Preflight(ctx, c)
}

// stands looks how the Certificate stands since a version was identified.
func (t triggered) stands(r *resource, v rotation.Version) (issued bool, err error) {
	since, err := sinceOf(v)
	if err == nil && r.Metadata.UID != v.Public[publicUID] {
		err = rotation.Errorf(rotation.Failed, "start again: keyturn prepare "+t.Name, "certificate: Certificate %s was deleted and made again since version %d was prepared", t.m.manager.name(), v.Number)
	}
	return err == nil && r.Status.Revision > since, err
}

// trigger tells cert-manager to issue, unless it does already, or has since.
func (t triggered) trigger(ctx context.Context, c rotation.Credential) (rotation.Result, error) {
	client, err := t.m.open()
	if err != nil {
		return rotation.Result{}, err
	}
	defer client.close()
	why := ""
	triggered, err := client.trigger(ctx, t.m.options.Now, func(r *resource) (bool, error) {
		issued, err := t.stands(r, c.Next())
		switch {
		case err != nil:
			return false, err
		case r.issuing():
			why = "an issuance was under way already: " + r.condition(conditionIssuing).words()
		case issued:
			why = fmt.Sprintf("cert-manager has issued revision %d since", r.Status.Revision)
		default:
			return true, nil
		}
		return false, nil
	})
	if err != nil || triggered {
		return rotation.Result{}, err
	}
	return rotation.Result{Observed: true, Evidence: map[string]any{"not triggered": why}, Note: "cert-manager was not told to issue: " + why}, nil
}

// callOff takes back that cert-manager was told: where nothing came of it, there is nothing
// to take back; what is under way, or issued, cannot be.
func (t triggered) callOff(ctx context.Context, c rotation.Credential, _ json.RawMessage) error {
	client, err := t.m.open()
	if err != nil {
		return err
	}
	defer client.close()
	r, err := client.certificate(ctx)
	if said(err) == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if r.Metadata.UID != c.Next().Public[publicUID] {
		return nil
	}
	issued, err := t.stands(r, c.Next())
	switch {
	case err != nil:
		return err
	case issued:
		return t.gone()
	case r.issuing():
		return refused("go on when it is over: keyturn cutover "+t.Name, "an issuance by Certificate %s is under way, and cannot be called off", t.m.manager.name())
	}
	return nil
}

func (t triggered) gone() error {
	return refused("the way is forward: keyturn cleanup "+t.Name+", then keyturn prepare "+t.Name, "there is no way back: %s", t.m.NoWayBack())
}

func (t triggered) noWayBack(context.Context, rotation.Credential) (rotation.Result, error) {
	return rotation.Result{}, t.gone()
}

// issued waits until cert-manager has issued, and looks what.
func (t triggered) issued(ctx context.Context, c rotation.Credential) (rotation.Result, error) {
	client, err := t.m.open()
	if err != nil {
		return rotation.Result{}, err
	}
	defer client.close()
	var s state
	err = t.m.until(ctx, t.m.wait(), func(ctx context.Context) (bool, error) {
		r, err := client.certificate(ctx)
		if err != nil {
			return rotation.ClassOf(err) != rotation.Unknown, err
		}
		s.resource = r
		return t.over(r, c.Next())
	})
	if err != nil {
		return rotation.Result{}, err
	}
	if s.issued, err = client.issued(ctx, s.resource); err != nil {
		if rotation.ClassOf(err) != rotation.Unknown {
			err = rotation.Classify(rotation.Stuck, rotation.HintOf(err), err)
		}
		return rotation.Result{}, err
	}
	v := s.on(c.Next())
	r := rotation.Result{Evidence: map[string]any{publicRevision: s.Status.Revision, publicSerial: v.Public[publicSerial], publicFingerprint: v.Public[publicFingerprint]}}
	if err := t.m.asDeclared(s.issued, c, v); err != nil {
		return r, rotation.Errorf(rotation.Stuck, "services get it: correct the Certificate, names: or roots:, let it be issued again (cmctl renew --namespace "+t.m.manager.Namespace+" "+t.m.manager.Certificate+"), then run again: keyturn cutover "+t.Name,
			"certificate: what cert-manager has issued is not as declared: %w", err)
	}
	r.Version = &v
	return r, nil
}

// over looks whether the issuance is over, and how it ended.
func (t triggered) over(r *resource, v rotation.Version) (done bool, err error) {
	issued, err := t.stands(r, v)
	if err != nil {
		return true, err
	}
	issuing, ready := r.condition(conditionIssuing), r.condition(conditionReady)
	again := "run it again: keyturn cutover " + t.Name
	switch {
	case issuing.Status == "True":
		return false, unknown("look: kubectl describe certificate --namespace "+t.m.manager.Namespace+" "+t.m.manager.Certificate+" (cmctl status certificate says more); then "+again,
			"cert-manager has not issued after %s: %s", t.m.wait(), issuing.words())
	case issued && ready.Status == "True":
		return true, nil
	case issued:
		return false, unknown("look: kubectl describe certificate --namespace "+t.m.manager.Namespace+" "+t.m.manager.Certificate+"; then "+again,
			"revision %d of Certificate %s is not ready after %s: %s", r.Status.Revision, t.m.manager.name(), t.m.wait(), ready.words())
	case issuing.Status == "":
		return true, rotation.Errorf(rotation.Failed, "start again: keyturn prepare "+t.Name, "certificate: cert-manager has given the issuance up, and says nothing of why")
	}
	return true, rotation.Errorf(rotation.Failed, "services keep the certificate that they have; see to its issuer, then: keyturn prepare "+t.Name,
		"certificate: cert-manager could not issue: %s", issuing.words())
}

// asDeclared holds what was issued against what was asked for.
func (m *Managed) asDeclared(i *issuance, c rotation.Credential, v rotation.Version) error {
	for _, o := range c.Versions {
		if o.Number != v.Number && o.Public[publicKey] == v.Public[publicKey] {
			return fmt.Errorf("its key is that of version %d (set spec.privateKey.rotationPolicy: Always)", o.Number)
		}
	}
	if err := i.fits(m.ofItsKey(i), i.leaf.PublicKey); err != nil {
		return err
	}
	now := m.options.Now()
	for _, at := range []time.Time{now, now.Add(m.options.Overlap)} {
		if err := i.trusted(m.look.roots, m.settings.Names, at); err != nil {
			return err
		}
	}
	return nil
}

// shown waits until every address serves what was issued, and notes how long that took.
func (t triggered) shown(ctx context.Context, c rotation.Credential) (rotation.Result, error) {
	next := c.Next()
	next.State = rotation.Current
	s, err := t.m.state(ctx)
	if err != nil {
		return rotation.Result{}, err
	}
	found, err := issuedOf(next)
	if err != nil || found == nil {
		return rotation.Result{}, fmt.Errorf("certificate: no certificate of version %d is on the record", next.Number)
	}
	var p rotation.ProbeResult
	begun, trial := t.m.options.Now(), t.m.trial(ctx, next, found, s)
	err = t.m.until(ctx, t.m.wait(), func(ctx context.Context) (bool, error) {
		p = trial.all(ctx, t.m.settings.Probe)
		return p.Answer == rotation.Alive || trial.own.Answer != rotation.Alive, nil
	})
	r := rotation.Result{Evidence: map[string]any{"new": p, "shown_ms": t.m.options.Now().Sub(begun).Milliseconds()}}
	switch {
	case err != nil:
		return r, err
	case p.Answer != rotation.Alive:
		return r, unknown("", "cert-manager has put revision %s in place, and not every address is seen to serve it: %s; what serves there must read the Secret again: reload it", next.Public[publicRevision], p.Reason)
	}
	return r, nil
}
