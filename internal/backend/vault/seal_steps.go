package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
)

// The steps of a ceremony that keep something for the next run.
const (
	stepStart   = "start"
	stepDeliver = "deliver"
	stepConfirm = "try new"
	stepRefuse  = "try old"
)

// An attempt is what a step keeps of the rekey that it began.
type attempt struct {
	Nonce    string `json:"nonce,omitempty"`
	Seen     int    `json:"seen,omitempty"`     // shares that were presented, as last seen
	Refused  int    `json:"refused,omitempty"`  // whole sets that Vault refused
	Accepted bool   `json:"accepted,omitempty"` // a set that it took
	Fewer    bool   `json:"fewer,omitempty"`    // there are too few shares for a set
}

func (a attempt) restore() json.RawMessage {
	b, _ := json.Marshal(a) // texts and numbers alone
	return b
}

// keptBy is what a step kept.
func keptBy(c rotation.Credential, phase rotation.Phase, step string, version int) (a attempt, state rotation.StepState) {
	if c.Open == nil {
		return a, state
	}
	state, _ = c.Open.Step(phase, step, version)
	_ = json.Unmarshal(state.Restore, &a) // nothing was kept
	return a, state
}

// begun, confirmed and tried are what the steps kept that begin a rekey.

func begun(c rotation.Credential) (attempt, rotation.StepState) {
	return keptBy(c, rotation.Cutover, stepStart, c.Next().Number)
}

func confirmed(c rotation.Credential) (attempt, rotation.StepState) {
	return keptBy(c, rotation.Cutover, stepConfirm, c.Next().Number)
}

func tried(c rotation.Credential) (attempt, rotation.StepState) {
	return keptBy(c, rotation.Cleanup, stepRefuse, c.Last().Number)
}

// isOurs reports whether a rekey is one that the open rotation began.
func (s *Seal) isOurs(c rotation.Credential, nonce string) bool {
	if c.Open == nil {
		return false
	}
	return slices.ContainsFunc(c.Open.Steps, func(st rotation.StepState) bool {
		var a attempt
		return json.Unmarshal(st.Restore, &a) == nil && a.Nonce == nonce
	})
}

// CeremonySteps implements [rotation.Ceremony].
func (s *Seal) CeremonySteps(p rotation.Phase) []rotation.Step {
	switch p {
	case rotation.Cutover:
		return []rotation.Step{
			{Name: stepStart, Effect: rotation.Activate, Do: s.with(s.start), Undo: s.unstart},
			{Name: "old shares", Do: s.with(s.oldShares)},
			{Name: stepDeliver, Do: s.with(s.deliver)},
			{Name: "new shares", Do: s.with(s.newShares)},
			{Name: stepConfirm, Effect: rotation.Try, Do: s.with(s.confirm), Undo: s.unconfirm},
		}
	case rotation.Cleanup:
		return []rotation.Step{
			{Name: stepRefuse, Effect: rotation.Try, On: rotation.LastVersion, Do: s.with(s.refuse)},
			{Name: "remove shares", Effect: rotation.End, On: rotation.LastVersion, Do: s.with(s.removeShares)},
			{Name: "proof", Effect: rotation.Prove, On: rotation.LastVersion, Do: s.proof},
		}
	case rotation.Rollback:
		return []rotation.Step{{Name: "way back", On: rotation.LastVersion, Do: s.wayBack}}
	}
	return nil
}

type doing func(context.Context, rotation.Credential) (rotation.Result, error)

// with gives a step its connections.
func (s *Seal) with(do func(context.Context, *vaultapi.Client, rotation.Credential) (rotation.Result, error)) doing {
	return func(ctx context.Context, cred rotation.Credential) (rotation.Result, error) {
		c, err := s.open(ctx)
		if err != nil {
			return rotation.Result{}, err
		}
		defer c.Close()
		return do(ctx, c, cred)
	}
}

// start begins the rekey, or finds the one that an earlier run began.
func (s *Seal) start(ctx context.Context, c *vaultapi.Client, cred rotation.Credential) (rotation.Result, error) {
	was, step := begun(cred)
	under, err := s.rekeying(ctx, c)
	if err != nil {
		return rotation.Result{}, err
	}
	switch {
	case under.Started && under.Nonce == was.Nonce:
		return rotation.Result{Observed: true}, nil
	case under.Started && was.Nonce == "" && step.Tried && s.matches(under, false):
		return rotation.Result{Observed: true, Restore: attempt{Nonce: under.Nonce}.restore(), Evidence: map[string]any{"rekey": under.Nonce}}, nil
	case under.Started && (s.isOurs(cred, under.Nonce) || s.isTrial(cred, under)):
		return rotation.Result{Observed: true}, nil
	case under.Started:
		return rotation.Result{}, s.foreign(under)
	}
	note := ""
	if was.Nonce != "" {
		made, err := s.wasMade(ctx, c, cred, was.Nonce)
		if made || err != nil {
			return rotation.Result{Observed: true}, err // whether it came into force is tried
		}
		note = "the rekey " + was.Nonce + " is gone from Vault, with the old shares that were presented (another node leads, it was sealed, or somebody cancelled it): it is begun again, and the old shares are valid as before"
	}
	if err := rotation.CheckLease(ctx); err != nil {
		return rotation.Result{}, err
	}
	is, err := s.begin(ctx, c, false)
	if err != nil {
		if rotation.ClassOf(err) == rotation.Failed {
			err = rotation.Classify(rotation.Refused, rotation.HintOf(err), err) // it says nothing against what is in force
		}
		return rotation.Result{}, err
	}
	return rotation.Result{Restore: attempt{Nonce: is.Nonce}.restore(), Note: note,
		Evidence: map[string]any{"rekey": is.Nonce, "fingerprints": is.PGPFingerprints}}, nil
}

// isTrial reports whether a rekey is the trial of a run that was cut off before it could say so.
func (s *Seal) isTrial(cred rotation.Credential, under rekey) bool {
	_, step := confirmed(cred)
	return step.Status != "" && step.Status != rotation.RecordUndone && s.matches(under, true)
}

// wasMade reports whether the new shares of a rekey that is not under way any more were made:
// then it came to its end, or was lost after that.
func (s *Seal) wasMade(ctx context.Context, c *vaultapi.Client, cred rotation.Credential, nonce string) (bool, error) {
	if was, _ := keptBy(cred, rotation.Cutover, stepDeliver, cred.Next().Number); was.Nonce == nonce {
		return true, nil
	}
	kept, err := s.kept(ctx, c)
	return kept != nil && kept.Nonce == nonce, err
}

// unstart cancels the rekey. Where the new shares were made and it is not under way any more, they
// may be in force: then there is no way back but by somebody's word that they were refused.
func (s *Seal) unstart(ctx context.Context, cred rotation.Credential, _ json.RawMessage) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	was, _ := begun(cred)
	under, err := s.rekeying(ctx, c)
	if err != nil {
		return err
	}
	if under.Started && (under.Nonce == was.Nonce || was.Nonce == "" && s.matches(under, false)) {
		if err := s.giveUp(ctx, c, under.Nonce); err != nil {
			return err
		}
		return s.forget(ctx, c, under.Nonce) // nobody presented the last of them
	}
	if was.Nonce == "" {
		return nil
	}
	made, err := s.wasMade(ctx, c, cred, was.Nonce)
	if err != nil || !made {
		return err
	}
	confirm, _ := confirmed(cred)
	refuse, _ := tried(cred)
	if refuse.Accepted || confirm.Refused > 0 && !confirm.Accepted {
		return nil // the encrypted shares stay in Vault: it is people who know
	}
	return refused("go on, which tries them: keyturn cutover "+cred.Name, "the new shares of the %s may be in force: they were made, and the rekey is at its end", s.kind.noun)
}

// oldShares waits until enough old ones were presented.
func (s *Seal) oldShares(ctx context.Context, c *vaultapi.Client, cred rotation.Credential) (rotation.Result, error) {
	was, _ := begun(cred)
	seen := 0
	return s.await(ctx, func() (bool, rotation.Result, error) {
		under, err := s.rekeying(ctx, c)
		if err != nil {
			return false, rotation.Result{}, err
		}
		if !under.Started || under.Nonce != was.Nonce {
			made, err := s.wasMade(ctx, c, cred, was.Nonce)
			if err != nil || made {
				return made, rotation.Result{}, err
			}
			return true, rotation.Result{Outcome: rotation.Waiting, For: "a new start: the rekey is gone from Vault, with the shares that were presented; the old ones are valid as before",
				Hint: "run it again: keyturn cutover " + cred.Name}, nil
		}
		if under.made() {
			return true, rotation.Result{}, nil
		}
		r := rotation.Result{Outcome: rotation.Waiting, For: fmt.Sprintf("holders of the old %s: %d of %d shares presented%s", s.kind.noun, under.Progress, under.Required, refusedWords(seen > under.Progress)),
			Hint: "each runs: " + s.command() + " -nonce=" + under.Nonce}
		seen = max(seen, under.Progress)
		return false, r, nil
	})
}

func refusedWords(refused bool) string {
	if refused {
		return " (those before were refused, and count for nothing)"
	}
	return ""
}

// newShares waits until the rekey is at its end.
func (s *Seal) newShares(ctx context.Context, c *vaultapi.Client, cred rotation.Credential) (rotation.Result, error) {
	was, _ := begun(cred)
	seen := 0
	return s.await(ctx, func() (bool, rotation.Result, error) {
		under, err := s.rekeying(ctx, c)
		if err != nil {
			return false, rotation.Result{}, err
		}
		if !under.Started || under.Nonce != was.Nonce {
			return true, rotation.Result{}, nil
		}
		r := rotation.Result{Outcome: rotation.Waiting, For: fmt.Sprintf("holders of the new %s: %d of %d shares presented, of which the last is the switch%s", s.kind.noun, under.verify.Progress, under.verify.T, refusedWords(seen > under.verify.Progress)),
			Hint: "each decrypts theirs (" + s.fetching() + ") and runs: " + s.command() + " -verify -nonce=" + under.verify.Nonce}
		seen = max(seen, under.verify.Progress)
		return false, r, nil
	})
}

// fetching says where holders find their share.
func (s *Seal) fetching() string {
	if s.shares.Deliver != "" {
		return "gpg --decrypt FILE, from " + s.shares.Deliver
	}
	return s.command() + " -backup-retrieve, then base64 --decode | gpg --decrypt"
}

// confirm has the new shares tried, which must be taken.
func (s *Seal) confirm(ctx context.Context, c *vaultapi.Client, cred rotation.Credential) (rotation.Result, error) {
	is, step := confirmed(cred)
	if is.Accepted {
		return rotation.Result{Observed: true}, s.giveUp(ctx, c, is.Nonce)
	}
	return s.try(ctx, c, cred, is, step.Tried, "new")
}

// refuse has the old shares tried, which must be refused. Where they are fewer than a set has
// now, there is nothing to try.
func (s *Seal) refuse(ctx context.Context, c *vaultapi.Client, cred rotation.Credential) (rotation.Result, error) {
	is, step := tried(cred)
	if n, err := strconv.Atoi(cred.Last().Public[publicShares]); err == nil && n < s.shares.Threshold {
		is.Fewer = true
		return rotation.Result{Restore: is.restore(), Evidence: map[string]any{"shares": n, "threshold": s.shares.Threshold}}, nil
	}
	if is.Refused > 0 && !is.Accepted {
		return rotation.Result{Observed: true}, s.giveUp(ctx, c, is.Nonce)
	}
	is.Accepted, is.Refused = false, 0
	return s.try(ctx, c, cred, is, step.Tried, "old")
}

// try begins a rekey to which holders present shares, and cancels it once Vault has taken or refused
// a whole set of them. Vault tells nobody which; that a set was refused shows in that those
// presented count for nothing again.
func (s *Seal) try(ctx context.Context, c *vaultapi.Client, cred rotation.Credential, is attempt, cutOff bool, which string) (rotation.Result, error) {
	under, err := s.rekeying(ctx, c)
	if err != nil {
		return rotation.Result{}, err
	}
	switch {
	case under.Started && is.Nonce == under.Nonce:
	case under.Started && is.Nonce == "" && cutOff && s.matches(under, true):
		is.Nonce = under.Nonce
	case under.Started:
		return rotation.Result{}, s.foreign(under)
	default: // it was lost, or never begun
		if err := rotation.CheckLease(ctx); err != nil {
			return rotation.Result{}, err
		}
		if under, err = s.begin(ctx, c, true); err != nil {
			return rotation.Result{}, rotation.Classify(rotation.Unknown, rotation.HintOf(err), err)
		}
		is = attempt{Nonce: under.Nonce, Refused: is.Refused}
	}
	wants := is.Refused
	r, err := s.await(ctx, func() (bool, rotation.Result, error) {
		under, err := s.rekeying(ctx, c)
		if err != nil {
			return false, rotation.Result{}, err
		}
		switch {
		case !under.Started || under.Nonce != is.Nonce:
			is.Nonce = ""
			return true, rotation.Result{Outcome: rotation.Waiting, For: "a new start of the trial, which is gone from Vault with the shares that were presented",
				Hint: "run it again: keyturn " + phaseOf(which) + " " + cred.Name}, nil
		case under.made():
			is.Accepted = true
			return true, rotation.Result{}, nil
		case under.Progress < is.Seen:
			is.Refused++
		}
		is.Seen = under.Progress
		if which == "old" && is.Refused > wants {
			return true, rotation.Result{}, nil
		}
		return false, rotation.Result{Outcome: rotation.Waiting, For: s.trialWords(which, under, is.Refused > 0),
			Hint: "each runs: " + s.command() + " -nonce=" + is.Nonce}, nil
	})
	if err == nil && r.Outcome != rotation.Waiting {
		if err = s.giveUp(ctx, c, is.Nonce); err == nil {
			r.Evidence = map[string]any{"trial": is.Nonce, "threshold": under.Required, "accepted": is.Accepted, "refused": is.Refused}
		}
	}
	if err == nil && which == "old" && is.Accepted {
		err = rotation.Errorf(rotation.Stuck, "if it was the new ones that were presented: keyturn cleanup "+cred.Name+"; if it was the old ones, the new ones are not in force: keyturn rollback --reason … "+cred.Name,
			"vault: the shares that were presented as old ones are in force")
	}
	r.Restore = is.restore()
	return r, err
}

func phaseOf(which string) string {
	if which == "new" {
		return string(rotation.Cutover)
	}
	return string(rotation.Cleanup)
}

func (s *Seal) trialWords(which string, under rekey, refused bool) string {
	words := fmt.Sprintf("holders of the %s %s, to try it: %d of %d shares presented", which, s.kind.noun, under.Progress, under.Required)
	if which == "new" && refused {
		words += " (those before were refused; if it was the new ones, they are not in force: keyturn rollback)"
	}
	return words
}

// unconfirm cancels the trial.
func (s *Seal) unconfirm(ctx context.Context, cred rotation.Credential, _ json.RawMessage) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	is, _ := confirmed(cred)
	if is.Nonce == "" {
		under, err := s.rekeying(ctx, c)
		if err != nil || !under.Started || !s.matches(under, true) {
			return err
		}
		is.Nonce = under.Nonce
	}
	return s.giveUp(ctx, c, is.Nonce)
}

// removeShares removes the encrypted shares from Vault. The old key ended with the last new share.
func (s *Seal) removeShares(ctx context.Context, c *vaultapi.Client, cred rotation.Credential) (rotation.Result, error) {
	was, _ := begun(cred)
	return rotation.Result{}, s.forget(ctx, c, was.Nonce)
}

// proof says what was seen of the old shares, and of the new ones beside them.
func (s *Seal) proof(_ context.Context, cred rotation.Credential) (rotation.Result, error) {
	old, _ := tried(cred)
	now, _ := confirmed(cred)
	said := "a whole set was refused, trial " + old.Nonce
	if old.Fewer {
		said = "they are fewer than a set has now"
	}
	if old.Refused == 0 && !old.Fewer || old.Accepted || !now.Accepted {
		return rotation.Result{}, rotation.Errorf(rotation.Unknown, "run it again: keyturn cleanup "+cred.Name, "vault: that the old shares are refused was not seen")
	}
	return rotation.Result{Evidence: map[string]any{"old": said, "new": "a whole set was taken, trial " + now.Nonce}}, nil
}

// wayBack is there only where the old shares were seen to be in force.
func (s *Seal) wayBack(_ context.Context, cred rotation.Credential) (rotation.Result, error) {
	if old, _ := tried(cred); old.Accepted {
		return rotation.Result{}, nil
	}
	return rotation.Result{}, refused("make another one: keyturn cleanup "+cred.Name+", then keyturn rotate "+cred.Name, "the new %s is in force: Vault has no way back to the old one", s.kind.noun)
}

// await looks again and again until it is so, or the time for holders is over. Look says
// what is waited for. What cannot be told for a while is asked again.
func (s *Seal) await(ctx context.Context, look func() (bool, rotation.Result, error)) (rotation.Result, error) {
	told := ""
	for end := time.Now().Add(s.shares.wait()); ; {
		done, r, err := look()
		if done || err != nil && rotation.ClassOf(err) != rotation.Unknown {
			return r, err
		}
		if time.Now().After(end) {
			return r, err
		}
		if r.For != told && s.options.Tell != nil {
			s.options.Tell(r.For, r.Hint)
			told = r.For
		}
		if err := remote.Pause(ctx, 250*time.Millisecond); err != nil {
			return rotation.Result{}, err
		}
	}
}
