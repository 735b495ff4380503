package vault

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A Seal makes a key anew of which people hold shares: the unseal key, or the recovery key of
// a Vault that unseals itself. Vault makes the new shares, encrypts each for its holder, and
// puts the new key into force once holders have presented enough of them. All of it is between
// the holders and Vault; Keyturn asks for it, waits, and sees no share.
//
// One key is in force at a time: until the last new share was presented the old one is, and
// from then on the new one. Whether it was presented, Vault does not say afterwards: it is
// tried, by a second rekey that is cancelled. Holders present the new shares, and Vault takes
// them; then the old ones, and Vault refuses them.
type Seal struct {
	settings Settings
	shares   Shares
	kind     *shareKind
	holders  []holder
	options  Options

	mu    sync.Mutex
	found *calls
}

// The interfaces that a Seal fulfils.
var (
	_ rotation.Ceremony = (*Seal)(nil)
	_ rotation.Adopter  = (*Seal)(nil)
	_ rotation.Warner   = (*Seal)(nil)
	_ rotation.Examiner = (*Seal)(nil)
	_ rotation.Nouner   = (*Seal)(nil)
)

// NewSeal returns a Seal for settings that passed [Section], with the texts of the holders' keys in
// Options. It does no I/O.
func NewSeal(s Settings, o Options) (*Seal, error) {
	if err := s.usable(o); err != nil {
		return nil, err
	}
	seal := &Seal{settings: s, kind: unsealKey, options: o}
	seal.options.Options = o.Complete()
	switch {
	case s.Seal != nil:
		seal.shares = *s.Seal
	case s.Recovery != nil:
		seal.shares, seal.kind = *s.Recovery, recoveryKey
	default:
		return nil, errors.New("vault: no shares are configured")
	}
	var err error
	seal.holders, err = readHolders(seal.shares.Holders, o.Holders, time.Now())
	return seal, err
}

// Procedure implements [rotation.Proceeder].
func (s *Seal) Procedure(standard *rotation.Standard) rotation.Procedure {
	return rotation.NewCeremony(standard, s)
}

// Place implements [rotation.Placed]: people have it, or nobody has.
func (s *Seal) Place() rotation.Target { return rotation.Held{} }

// Noun implements [rotation.Nouner].
func (s *Seal) Noun() string { return s.kind.noun }

func (s *Seal) open(ctx context.Context) (*vaultapi.Client, error) {
	return vaultapi.Open(ctx, s.settings.access(), s.options.Options)
}

// The public fields of a version.
const (
	publicShares    = "shares"
	publicThreshold = "threshold"
)

// Identify says who gets a share, by the keys that they are encrypted for: that is what is approved.
func (s *Seal) Identify(_ context.Context, next rotation.Version, _ []rotation.Version) (rotation.Version, error) {
	next = next.Clone()
	var who []string
	for _, h := range s.holders {
		who = append(who, strings.ToUpper(h.print))
	}
	next.Identity = fmt.Sprintf("%d of %d for %s", s.shares.Threshold, len(s.holders), strings.Join(who, " "))
	next.Public = map[string]string{publicShares: strconv.Itoa(len(s.holders)), publicThreshold: strconv.Itoa(s.shares.Threshold)}
	return next, nil
}

// Observe implements [rotation.Backend] by the record alone: Vault shows no key, and which of
// them is in force only shares can tell.
func (s *Seal) Observe(_ context.Context, v rotation.Version) (rotation.Standing, error) {
	switch v.State {
	case rotation.Current:
		return rotation.Standing{Status: rotation.Armed}, nil
	case rotation.Pending:
		return rotation.Standing{Status: rotation.Absent}, nil
	}
	return rotation.Standing{Status: rotation.Ended}, nil
}

// Arm implements [rotation.Backend]. It is an error: see [rotation.Ceremony].
func (s *Seal) Arm(context.Context, rotation.Version, rotation.Material, time.Time) error {
	return errors.New("vault: a key comes into force by its shares")
}

// End implements [rotation.Backend]. What is in force is ended by the next one alone.
func (s *Seal) End(_ context.Context, v rotation.Version, _ rotation.Why) error {
	if v.State != rotation.Current {
		return nil
	}
	return refused("make another one: keyturn revoke --mode fast --reason …, and have the holders at hand", "the %s is ended by the next one alone", s.kind.noun)
}

// ProbeSpec implements [rotation.Backend]. Nobody but the holders can try a share.
func (s *Seal) ProbeSpec(rotation.Version) rotation.ProbeSpec { return rotation.ProbeSpec{} }

// command is what holders run, once it is known how the servers are asked.
func (s *Seal) command() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	how := s.found
	if how == nil {
		how = s.kind.vault
	}
	return how.command + s.kind.flag
}

// sealed asks how Vault is sealed, and refuses one that has no such key.
func (s *Seal) sealed(ctx context.Context, c *vaultapi.Client) (is *api.SealStatusResponse, err error) {
	err = c.InTurn(ctx, "asking how it is sealed", func(ctx context.Context, c *api.Client) (err error) {
		is, err = c.Sys().SealStatusWithContext(ctx)
		return err
	})
	if err == nil {
		err = s.fits(is)
	}
	return is, err
}

// fits says whether Vault has such a key.
func (s *Seal) fits(is *api.SealStatusResponse) error {
	if s.kind == unsealKey && is.RecoverySeal {
		return refused("write recovery: in its place, and let the system that unseals Vault renew its own key", "Vault unseals itself (%s): people hold shares of the recovery key", is.Type)
	}
	if s.kind == recoveryKey && !is.RecoverySeal {
		return refused("write seal: in its place", "Vault does not unseal itself (%s): it has no recovery key", is.Type)
	}
	return nil
}

// Preflight checks that every server is there and unsealed, that Vault has such a key, that nobody
// else makes it anew, and that the administrator's token may do what is needed. It reads only.
func (s *Seal) Preflight(ctx context.Context, cred rotation.Credential) error {
	if cred.Open != nil && cred.Open.From == 0 {
		return refused("keyturn adopt "+s.options.Credential, "the %s that is in force is not on the record", s.kind.noun)
	}
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Ready(ctx); err != nil {
		return err
	}
	if _, err := s.sealed(ctx, c); err != nil {
		return err
	}
	how, err := s.how(ctx, c)
	if err != nil {
		return err
	}
	if err := c.Rights(ctx, how.needs); err != nil {
		return err
	}
	return s.alone(ctx, c, cred)
}

// alone refuses what somebody else began.
func (s *Seal) alone(ctx context.Context, c *vaultapi.Client, cred rotation.Credential) error {
	under, err := s.rekeying(ctx, c)
	if err != nil {
		return err
	}
	if under.Started && !s.isOurs(cred, under.Nonce) {
		return s.foreign(under)
	}
	kept, err := s.kept(ctx, c)
	if err != nil {
		return err
	}
	if kept != nil && !s.isOurs(cred, kept.Nonce) {
		return refused("when every holder has fetched them: "+s.command()+" -backup-delete",
			"Vault keeps encrypted shares of another rekey (%s), which the next one would overwrite", kept.Nonce)
	}
	return nil
}

func (s *Seal) foreign(r rekey) error {
	return refused("let it come to its end, or cancel it: "+s.command()+" -cancel -nonce="+r.Nonce,
		"somebody else makes the %s anew: %d of %d shares presented, nonce %s", s.kind.noun, r.Progress, r.Required, r.Nonce)
}

// Adopt takes over the key that is in force.
func (s *Seal) Adopt(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	c, err := s.open(ctx)
	if err != nil {
		return v, err
	}
	defer c.Close()
	is, err := s.sealed(ctx, c)
	if err != nil {
		return v, err
	}
	v = v.Clone()
	v.Identity = fmt.Sprintf("%d of %d", is.T, is.N)
	v.Public = map[string]string{publicShares: strconv.Itoa(is.N), publicThreshold: strconv.Itoa(is.T)}
	return v, nil
}

// InForce implements [rotation.Ceremony].
func (s *Seal) InForce(ctx context.Context, v rotation.Version) (string, error) {
	c, err := s.open(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	is, err := s.sealed(ctx, c)
	if err != nil {
		return "", err
	}
	if has := strconv.Itoa(is.N); v.Public[publicShares] != "" && (v.Public[publicShares] != has || v.Public[publicThreshold] != strconv.Itoa(is.T)) {
		return "", refused("find out who made it anew, by hand", "Vault has %d shares of which %d are needed, and version %d has %s and %s",
			is.N, is.T, v.Number, v.Public[publicShares], v.Public[publicThreshold])
	}
	return fmt.Sprintf("%d shares of the %s, of which %d are needed", is.N, s.kind.noun, is.T), nil
}

// Warnings implements [rotation.Warner].
func (s *Seal) Warnings(context.Context, string) ([]string, error) {
	out := []string{"take a snapshot before the cutover, and another one after it: a snapshot is opened by the shares of its own time"}
	if s.shares.Deliver == "" {
		out = append(out, "holders fetch their encrypted shares from Vault themselves, for which they need a token that may read "+s.kind.vault.backup+" (of OpenBao "+s.kind.rotate.backup+"); or write deliver: FOLDER")
	}
	return out, nil
}

// Examine implements [rotation.Examiner]: what is under way.
func (s *Seal) Examine(ctx context.Context) ([]rotation.Remark, error) {
	c, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	under, err := s.rekeying(ctx, c)
	if err != nil {
		return nil, err
	}
	if !under.Started {
		return nil, nil
	}
	return []rotation.Remark{{Level: rotation.Warning, Hint: "keyturn status " + s.options.Credential,
		Text: fmt.Sprintf("the %s is being made anew: %d of %d shares presented, nonce %s", s.kind.noun, under.Progress, under.Required, under.Nonce)}}, nil
}

// Ways implements [rotation.Placed].
func (s *Seal) Ways() map[rotation.Phase][]rotation.Way {
	n, t := len(s.holders), s.shares.Threshold
	return map[rotation.Phase][]rotation.Way{
		rotation.Prepare: {{Does: "looks at Vault and at the holders' keys", Effect: "changes nothing"}},
		rotation.Cutover: {
			{Does: "holders present the old shares to Vault, which encrypts the new ones for them", Effect: "can be cancelled, the old shares stay valid"},
			{Does: fmt.Sprintf("holders present %d of the %d new shares: the last of them is the switch", t, n), Effect: "no way back"},
			{Does: fmt.Sprintf("they present %d new shares once more, to a rekey that is cancelled", t), Effect: "shows that they are in force"},
		},
		rotation.Rollback: {{Does: "the rekey is cancelled", Effect: "the old shares stay valid"}},
		rotation.Cleanup:  {{Does: "they present the old shares, which must be refused; the encrypted shares are removed from Vault", Effect: "restarts nothing"}},
	}
}
