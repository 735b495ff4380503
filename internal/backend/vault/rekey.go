package vault

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
)

// A shareKind is one of the two keys of which people hold shares, and how Vault is asked to
// make it anew.
type shareKind struct {
	noun   string // for people
	flag   string // of vault operator rekey
	backup string // the path of the encrypted shares

	status    func(*api.Sys, context.Context) (*api.RekeyStatusResponse, error)
	begin     func(*api.Sys, context.Context, *api.RekeyInitRequest) (*api.RekeyStatusResponse, error)
	cancel    func(*api.Sys, context.Context, string) error
	verifying func(*api.Sys, context.Context) (*api.RekeyVerificationStatusResponse, error)
	restart   func(*api.Sys, context.Context) error // of the verification
	fetch     func(*api.Sys, context.Context) (*api.RekeyRetrieveResponse, error)
	remove    func(*api.Sys, context.Context) error
}

var (
	unsealKey = &shareKind{
		noun: "unseal key", backup: "sys/rekey/backup",
		status: (*api.Sys).RekeyStatusWithContext, begin: (*api.Sys).RekeyInitWithContext, cancel: (*api.Sys).RekeyCancelWithContextWithNonce,
		verifying: (*api.Sys).RekeyVerificationStatusWithContext, restart: (*api.Sys).RekeyVerificationCancelWithContext,
		fetch: (*api.Sys).RekeyRetrieveBackupWithContext, remove: (*api.Sys).RekeyDeleteBackupWithContext,
	}
	recoveryKey = &shareKind{
		noun: "recovery key", flag: " -target=recovery", backup: "sys/rekey/recovery-key-backup",
		status: (*api.Sys).RekeyRecoveryKeyStatusWithContext, begin: (*api.Sys).RekeyRecoveryKeyInitWithContext, cancel: (*api.Sys).RekeyRecoveryKeyCancelWithContextWithNonce,
		verifying: (*api.Sys).RekeyRecoveryKeyVerificationStatusWithContext, restart: (*api.Sys).RekeyRecoveryKeyVerificationCancelWithContext,
		fetch: (*api.Sys).RekeyRetrieveRecoveryBackupWithContext, remove: (*api.Sys).RekeyDeleteRecoveryBackupWithContext,
	}
)

// sys asks one server after the other until one answers.
func sys(ctx context.Context, c *vaultapi.Client, doing string, call func(*api.Sys, context.Context) error) error {
	return remote.InTurn(ctx, c.Servers, func(s vaultapi.Server) error {
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		return c.Wrap(s.URL, doing, call(s.API.Sys(), ctx))
	})
}

// A rekey is what Vault says of the one that is under way.
type rekey struct {
	api.RekeyStatusResponse
	verify api.RekeyVerificationStatusResponse // where the new shares are presented already
}

// made reports whether the new shares were made, and are not in force yet.
func (r rekey) made() bool { return r.Started && r.VerificationNonce != "" }

// rekeying asks what is under way.
func (s *Seal) rekeying(ctx context.Context, c *vaultapi.Client) (out rekey, err error) {
	doing := "asking for a rekey under way"
	err = sys(ctx, c, doing, func(sys *api.Sys, ctx context.Context) error {
		is, err := s.kind.status(sys, ctx)
		if err != nil {
			return err
		}
		out = rekey{RekeyStatusResponse: *is}
		if !out.made() {
			return nil
		}
		verify, err := s.kind.verifying(sys, ctx)
		if said := vaultapi.Answered(err); said != nil && said.Status == http.StatusBadRequest {
			out = rekey{} // it came to its end in between
			return nil
		}
		if err == nil {
			out.verify = *verify
		}
		return err
	})
	return out, err
}

// ask is what a rekey is asked for with; a trial keeps nothing.
func (s *Seal) request(trial bool) *api.RekeyInitRequest {
	r := &api.RekeyInitRequest{SecretShares: len(s.holders), SecretThreshold: s.shares.Threshold, Backup: !trial, RequireVerification: true}
	for _, h := range s.holders {
		r.PGPKeys = append(r.PGPKeys, h.key)
	}
	return r
}

// matches reports whether a rekey is one that we would ask for.
func (s *Seal) matches(r rekey, trial bool) bool {
	return r.N == len(s.holders) && r.T == s.shares.Threshold && r.VerificationRequired && r.Backup == !trial &&
		slices.EqualFunc(r.PGPFingerprints, s.holders, func(print string, h holder) bool { return print == h.print })
}

// begin asks for a rekey. An answer that was lost is looked for: nothing was under way before.
func (s *Seal) begin(ctx context.Context, c *vaultapi.Client, trial bool) (rekey, error) {
	var is rekey
	err := sys(ctx, c, "beginning a rekey", func(sys *api.Sys, ctx context.Context) error {
		got, err := s.kind.begin(sys, ctx, s.request(trial))
		if err == nil {
			is = rekey{RekeyStatusResponse: *got}
		}
		return err
	})
	if err != nil {
		found, asked := s.rekeying(ctx, c)
		if asked != nil || !found.Started || !s.matches(found, trial) {
			return is, err
		}
		is = found
	}
	if !s.matches(is, trial) {
		return is, fmt.Errorf("vault: the rekey that was begun is another than was asked for: %d of %d shares, for the keys %v", is.T, is.N, is.PGPFingerprints)
	}
	return is, nil
}

// give up cancels a rekey of ours; one that is gone is success. Where the new shares were made,
// those that were presented are forgotten first: after that nobody can bring the last one
// while it is cancelled.
func (s *Seal) giveUp(ctx context.Context, c *vaultapi.Client, nonce string) error {
	is, err := s.rekeying(ctx, c)
	if err != nil || !is.Started || is.Nonce != nonce {
		return err
	}
	if is.made() {
		err := sys(ctx, c, "forgetting the new shares that were presented", func(sys *api.Sys, ctx context.Context) error { return s.kind.restart(sys, ctx) })
		if err != nil {
			return err
		}
	}
	return sys(ctx, c, "cancelling the rekey", func(sys *api.Sys, ctx context.Context) error { return s.kind.cancel(sys, ctx, nonce) })
}

// kept returns the encrypted shares that Vault keeps; nil if there are none.
func (s *Seal) kept(ctx context.Context, c *vaultapi.Client) (out *api.RekeyRetrieveResponse, err error) {
	err = sys(ctx, c, "asking for the encrypted shares", func(sys *api.Sys, ctx context.Context) (err error) {
		out, err = s.kind.fetch(sys, ctx)
		if said := vaultapi.Answered(err); said != nil && (said.Status == http.StatusNotFound || said.Status == http.StatusBadRequest) {
			out, err = nil, nil
		}
		return err
	})
	return out, err
}

// forget removes the encrypted shares of one rekey.
func (s *Seal) forget(ctx context.Context, c *vaultapi.Client, nonce string) error {
	kept, err := s.kept(ctx, c)
	if err != nil || kept == nil || kept.Nonce != nonce {
		return err
	}
	return sys(ctx, c, "removing the encrypted shares", func(sys *api.Sys, ctx context.Context) error { return s.kind.remove(sys, ctx) })
}
