package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A Keyring makes the key anew with which Vault encrypts what it stores. Vault does so at
// once, while it serves; the keys before stay in its keyring, for what they encrypted can be read
// with them alone. There is no way back, and none is needed.
type Keyring struct {
	settings Settings
	options  Options
}

// The interfaces that a Keyring fulfils.
var (
	_ rotation.Ceremony = (*Keyring)(nil)
	_ rotation.Adopter  = (*Keyring)(nil)
	_ rotation.Nouner   = (*Keyring)(nil)
)

// NewKeyring returns a Keyring for settings that passed [Section]. It does no I/O.
func NewKeyring(s Settings, o Options) (*Keyring, error) {
	if err := s.usable(o); err != nil {
		return nil, err
	}
	o.Options = o.Complete()
	return &Keyring{settings: s, options: o}, nil
}

// Procedure implements [rotation.Proceeder].
func (k *Keyring) Procedure(standard *rotation.Standard) rotation.Procedure {
	return rotation.NewCeremony(standard, k)
}

// Place implements [rotation.Placed]: people have it, or nobody has.
func (k *Keyring) Place() rotation.Target { return rotation.Held{} }

// Noun implements [rotation.Nouner].
func (k *Keyring) Noun() string { return "encryption key" }

// termOf is how Vault numbers its keys.
func termOf(v rotation.Version) int {
	term, _ := strconv.Atoi(v.Public[publicTerm]) // of a version that was never made: none
	return term
}

// publicTerm is the number that Vault gives a key, once it was made.
const publicTerm = "term"

// with gives a step its connections, and what Vault says of the key in use.
func (k *Keyring) with(ctx context.Context, do func(c *vaultapi.Client, now *api.KeyStatus) error) error {
	c, err := vaultapi.Open(ctx, k.settings.access(), k.options.Options)
	if err != nil {
		return err
	}
	defer c.Close()
	var now *api.KeyStatus
	err = c.InTurn(ctx, "asking for the encryption key", func(ctx context.Context, c *api.Client) (err error) {
		now, err = c.Sys().KeyStatusWithContext(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return do(c, now)
}

// Identify implements [rotation.Backend].
func (k *Keyring) Identify(_ context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	next.Identity = rotation.Title(k.options.Credential, next.Number)
	return next, nil
}

// Observe implements [rotation.Backend]: a key that is not in use any more encrypts nothing.
func (k *Keyring) Observe(ctx context.Context, v rotation.Version) (out rotation.Standing, err error) {
	term := termOf(v)
	if term == 0 {
		return rotation.Standing{Status: rotation.Absent}, nil
	}
	err = k.with(ctx, func(_ *vaultapi.Client, now *api.KeyStatus) error {
		out.Status = rotation.Ended
		if now.Term == term {
			out.Status = rotation.Armed
		}
		return nil
	})
	return out, err
}

// Arm implements [rotation.Backend]. It is an error: see [rotation.Ceremony].
func (k *Keyring) Arm(context.Context, rotation.Version, rotation.Material, time.Time) error {
	return errors.New("vault: a key comes into use when it is made")
}

// End implements [rotation.Backend]. The key in use is ended by the next one alone.
func (k *Keyring) End(_ context.Context, v rotation.Version, _ rotation.Why) error {
	if v.State != rotation.Current {
		return nil
	}
	return refused("make another one: keyturn revoke --mode fast --reason …", "the encryption key is ended by the next one alone")
}

// ProbeSpec implements [rotation.Backend]. Nobody has the key.
func (k *Keyring) ProbeSpec(rotation.Version) rotation.ProbeSpec { return rotation.ProbeSpec{} }

// Preflight checks that every server is there and unsealed, and that the administrator's token may
// do what is needed. It reads only.
func (k *Keyring) Preflight(ctx context.Context, cred rotation.Credential) error {
	if cred.Open != nil && cred.Open.From == 0 {
		return refused("keyturn adopt "+k.options.Credential, "the encryption key that is in use is not on the record")
	}
	c, err := vaultapi.Open(ctx, k.settings.access(), k.options.Options)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Able(ctx, map[string][]string{"sys/key-status": {"read"}, "sys/rotate": {"update", "sudo"}})
}

// Adopt takes over the key that is in use.
func (k *Keyring) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	v = v.Clone()
	err := k.with(ctx, func(_ *vaultapi.Client, now *api.KeyStatus) error {
		v.Identity, v.Public = fmt.Sprintf("term %d", now.Term), map[string]string{publicTerm: strconv.Itoa(now.Term)}
		return nil
	})
	return v, err
}

// InForce implements [rotation.Ceremony].
func (k *Keyring) InForce(ctx context.Context, v rotation.Version) (said string, err error) {
	err = k.with(ctx, func(_ *vaultapi.Client, now *api.KeyStatus) error {
		said = fmt.Sprintf("term %d, made %s, encrypted %d times", now.Term, now.InstallTime.UTC().Format(time.DateTime), now.Encryptions)
		if term := termOf(v); term != 0 && now.Term < term {
			return refused("was an older snapshot brought back?", "Vault encrypts with term %d, and version %d has term %d", now.Term, v.Number, term)
		} else if now.Term > term && term != 0 {
			said += fmt.Sprintf("; since version %d Vault or somebody else made a newer one", v.Number)
		}
		return nil
	})
	return said, err
}

// Ways implements [rotation.Placed].
func (k *Keyring) Ways() map[rotation.Phase][]rotation.Way {
	return map[rotation.Phase][]rotation.Way{
		rotation.Prepare:  {{Does: "looks at Vault", Effect: "changes nothing"}},
		rotation.Cutover:  {{Does: "Vault makes a new key, and encrypts with it from then on", Effect: "no way back"}},
		rotation.Rollback: {{Does: "nothing was made yet", Effect: "restarts nothing"}},
		rotation.Cleanup:  {{Does: "the old key is seen to be out of use; it stays in the keyring, to read what it encrypted", Effect: "restarts nothing"}},
	}
}

// CeremonySteps implements [rotation.Ceremony].
func (k *Keyring) CeremonySteps(p rotation.Phase) []rotation.Step {
	switch p {
	case rotation.Cutover:
		return []rotation.Step{{Name: "rotate", Effect: rotation.Activate, Do: k.rotate, Undo: k.unrotate}}
	case rotation.Cleanup:
		return []rotation.Step{
			{Name: "out of use", Effect: rotation.End, On: rotation.LastVersion, Do: k.outOfUse},
			{Name: "proof", Effect: rotation.Prove, On: rotation.LastVersion, Do: k.outOfUse},
		}
	case rotation.Rollback:
		return []rotation.Step{{Name: "way back", On: rotation.LastVersion, Do: func(context.Context, rotation.Credential) (rotation.Result, error) {
			return rotation.Result{}, k.noWayBack()
		}}}
	}
	return nil
}

// rotate makes the key. One that is newer than the last on the record, by a run that was cut off
// or by Vault itself, is the one.
func (k *Keyring) rotate(ctx context.Context, cred rotation.Credential) (r rotation.Result, err error) {
	next, last := cred.Next(), termOf(cred.Last())
	step, _ := cred.Open.Step(rotation.Cutover, "rotate", next.Number)
	err = k.with(ctx, func(c *vaultapi.Client, now *api.KeyStatus) error {
		if r.Observed = termOf(next) != 0 || step.Tried && now.Term > last; !r.Observed {
			if err := rotation.CheckLease(ctx); err != nil {
				return err
			}
			if err := c.InTurn(ctx, "making a new encryption key", func(ctx context.Context, c *api.Client) error { return c.Sys().RotateWithContext(ctx) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || termOf(next) != 0 {
		return r, err
	}
	err = k.with(ctx, func(_ *vaultapi.Client, now *api.KeyStatus) error {
		if now.Term <= last {
			return rotation.Errorf(rotation.Unknown, "run it again: keyturn cutover "+cred.Name, "vault: a new key was made, and the one in use is still term %d", now.Term)
		}
		next = next.Clone()
		next.Identity, next.Public = fmt.Sprintf("term %d", now.Term), map[string]string{publicTerm: strconv.Itoa(now.Term)}
		r.Version, r.Evidence = &next, map[string]any{"term": now.Term}
		return nil
	})
	return r, err
}

// unrotate is there for a run that was cut off before Vault heard of it.
func (k *Keyring) unrotate(ctx context.Context, cred rotation.Credential, _ json.RawMessage) error {
	return k.with(ctx, func(_ *vaultapi.Client, now *api.KeyStatus) error {
		if now.Term <= termOf(cred.Last()) {
			return nil
		}
		return k.noWayBack()
	})
}

func (k *Keyring) noWayBack() error {
	return refused("make another one: keyturn cleanup "+k.options.Credential+", then keyturn rotate "+k.options.Credential, "the new encryption key is in use, and what it encrypted needs it")
}

// outOfUse looks whether the old key encrypts nothing any more.
func (k *Keyring) outOfUse(ctx context.Context, cred rotation.Credential) (r rotation.Result, err error) {
	err = k.with(ctx, func(_ *vaultapi.Client, now *api.KeyStatus) error {
		if old := termOf(cred.Last()); now.Term <= old {
			return rotation.Errorf(rotation.Unknown, "was an older snapshot brought back?", "vault: term %d is in use again", now.Term)
		}
		r.Evidence = map[string]any{"in_use": now.Term, "installed": now.InstallTime.UTC()}
		return nil
	})
	return r, err
}
