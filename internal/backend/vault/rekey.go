package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
)

// A shareKind is one of the two keys of which people hold shares.
type shareKind struct {
	noun          string // for people
	flag          string // of the commands that present a share
	vault, rotate *calls // how Vault is asked to make it anew, and how OpenBao is
}

// calls are how a server is asked for a rekey.
type calls struct {
	command string // by which holders present a share
	backup  string // the path of the encrypted shares
	needs   map[string][]string

	status    func(context.Context, *api.Client) (*api.RekeyStatusResponse, error)
	begin     func(context.Context, *api.Client, *api.RekeyInitRequest) (*api.RekeyStatusResponse, error)
	cancel    func(context.Context, *api.Client, string) error
	verifying func(context.Context, *api.Client) (*api.RekeyVerificationStatusResponse, error)
	restart   func(context.Context, *api.Client) error // of the verification
	fetch     func(context.Context, *api.Client) (*api.RekeyRetrieveResponse, error)
	remove    func(context.Context, *api.Client) error
}

var (
	unsealKey = &shareKind{noun: "unseal key", rotate: rotating("sys/rotate/root"), vault: &calls{
		command: "vault operator rekey", backup: "sys/rekey/backup", needs: map[string][]string{"sys/rekey/backup": {"read", "delete"}},
		status: asked((*api.Sys).RekeyStatusWithContext), begin: beginning((*api.Sys).RekeyInitWithContext), cancel: cancelling((*api.Sys).RekeyCancelWithContextWithNonce),
		verifying: asked((*api.Sys).RekeyVerificationStatusWithContext), restart: told((*api.Sys).RekeyVerificationCancelWithContext),
		fetch: asked((*api.Sys).RekeyRetrieveBackupWithContext), remove: told((*api.Sys).RekeyDeleteBackupWithContext),
	}}
	recoveryKey = &shareKind{noun: "recovery key", flag: " -target=recovery", rotate: rotating("sys/rotate/recovery"), vault: &calls{
		command: "vault operator rekey", backup: "sys/rekey/recovery-key-backup", needs: map[string][]string{"sys/rekey/recovery-key-backup": {"read", "delete"}},
		status: asked((*api.Sys).RekeyRecoveryKeyStatusWithContext), begin: beginning((*api.Sys).RekeyRecoveryKeyInitWithContext), cancel: cancelling((*api.Sys).RekeyRecoveryKeyCancelWithContextWithNonce),
		verifying: asked((*api.Sys).RekeyRecoveryKeyVerificationStatusWithContext), restart: told((*api.Sys).RekeyRecoveryKeyVerificationCancelWithContext),
		fetch: asked((*api.Sys).RekeyRetrieveRecoveryBackupWithContext), remove: told((*api.Sys).RekeyDeleteRecoveryBackupWithContext),
	}}
)

// asked, told, beginning and cancelling have a call of Vault's client made on a server.

func asked[T any](call func(*api.Sys, context.Context) (T, error)) func(context.Context, *api.Client) (T, error) {
	return func(ctx context.Context, c *api.Client) (T, error) { return call(c.Sys(), ctx) }
}

func told(call func(*api.Sys, context.Context) error) func(context.Context, *api.Client) error {
	return func(ctx context.Context, c *api.Client) error { return call(c.Sys(), ctx) }
}

func beginning(call func(*api.Sys, context.Context, *api.RekeyInitRequest) (*api.RekeyStatusResponse, error)) func(context.Context, *api.Client, *api.RekeyInitRequest) (*api.RekeyStatusResponse, error) {
	return func(ctx context.Context, c *api.Client, r *api.RekeyInitRequest) (*api.RekeyStatusResponse, error) {
		return call(c.Sys(), ctx, r)
	}
}

func cancelling(call func(*api.Sys, context.Context, string) error) func(context.Context, *api.Client, string) error {
	return func(ctx context.Context, c *api.Client, nonce string) error { return call(c.Sys(), ctx, nonce) }
}

// rotating are the paths of OpenBao from 2.4 on, all of which want a token.
func rotating(base string) *calls {
	begun, verify, backup := base+"/init", base+"/verify", base+"/backup"
	read := func(ctx context.Context, c *api.Client, path string, into any) error {
		answer, err := c.Logical().ReadWithContext(ctx, path)
		return decoded(answer, err, into)
	}
	return &calls{
		command: "bao operator rotate-keys", backup: backup,
		needs: map[string][]string{begun: {"read", "update", "delete"}, verify: {"read", "delete"}, backup: {"read", "delete"}},
		status: func(ctx context.Context, c *api.Client) (out *api.RekeyStatusResponse, err error) {
			out = &api.RekeyStatusResponse{}
			return out, read(ctx, c, begun, out)
		},
		begin: func(ctx context.Context, c *api.Client, r *api.RekeyInitRequest) (*api.RekeyStatusResponse, error) {
			out := &api.RekeyStatusResponse{}
			answer, err := c.Logical().WriteWithContext(ctx, begun, map[string]any{"secret_shares": r.SecretShares, "secret_threshold": r.SecretThreshold,
				"pgp_keys": r.PGPKeys, "backup": r.Backup, "require_verification": r.RequireVerification})
			return out, decoded(answer, err, out)
		},
		cancel: func(ctx context.Context, c *api.Client, nonce string) error {
			_, err := c.Logical().DeleteWithDataWithContext(ctx, begun, map[string][]string{"nonce": {nonce}})
			return err
		},
		verifying: func(ctx context.Context, c *api.Client) (out *api.RekeyVerificationStatusResponse, err error) {
			out = &api.RekeyVerificationStatusResponse{}
			return out, read(ctx, c, verify, out)
		},
		restart: func(ctx context.Context, c *api.Client) error {
			_, err := c.Logical().DeleteWithContext(ctx, verify)
			return err
		},
		fetch: func(ctx context.Context, c *api.Client) (out *api.RekeyRetrieveResponse, err error) {
			out = &api.RekeyRetrieveResponse{}
			return out, read(ctx, c, backup, out)
		},
		remove: func(ctx context.Context, c *api.Client) error {
			_, err := c.Logical().DeleteWithContext(ctx, backup)
			return err
		},
	}
}

// decoded reads the data of an answer that must have some.
func decoded(answer *api.Secret, err error, into any) error {
	if err != nil {
		return err
	}
	found, err := vaultapi.Decode(answer, into)
	if err == nil && !found {
		err = errors.New("the answer is empty")
	}
	return err
}

// how finds out by what paths the servers are asked. It is not guessed from their version: OpenBao
// has those of Vault, too, unless they are switched off, which they are from 2.5 on.
func (s *Seal) how(ctx context.Context, c *vaultapi.Client) (*calls, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found != nil {
		return s.found, nil
	}
	found := s.kind.vault
	err := c.InTurn(ctx, "asking for a rekey under way", func(ctx context.Context, c *api.Client) error {
		_, err := s.kind.vault.status(ctx, c)
		if said := vaultapi.Answered(err); said != nil && (said.Status == http.StatusNotFound || said.Status == http.StatusMethodNotAllowed) {
			found, err = s.kind.rotate, nil
		} else if said != nil && said.Status == http.StatusBadRequest {
			err = nil // it has the path, and no such key
		}
		return err
	})
	if err == nil {
		s.found = found
	}
	return found, err
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
	c.Anew() // people take their time
	how, err := s.how(ctx, c)
	if err != nil {
		return out, err
	}
	err = c.InTurn(ctx, "asking for a rekey under way", func(ctx context.Context, c *api.Client) error {
		is, err := how.status(ctx, c)
		if err != nil {
			return err
		}
		out = rekey{RekeyStatusResponse: *is}
		if !out.made() {
			return nil
		}
		verify, err := how.verifying(ctx, c)
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

// request is what a rekey is asked for with; a trial keeps nothing.
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
	how, err := s.how(ctx, c)
	if err != nil {
		return is, err
	}
	err = c.InTurn(ctx, "beginning a rekey", func(ctx context.Context, c *api.Client) error {
		got, err := how.begin(ctx, c, s.request(trial))
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

// giveUp cancels a rekey of ours; one that is gone is success. Where the new shares were made,
// those that were presented are forgotten first: after that nobody can bring the last one
// while it is cancelled.
func (s *Seal) giveUp(ctx context.Context, c *vaultapi.Client, nonce string) error {
	is, err := s.rekeying(ctx, c)
	if err != nil || !is.Started || is.Nonce != nonce {
		return err
	}
	how, err := s.how(ctx, c)
	if err != nil {
		return err
	}
	if is.made() {
		if err := c.InTurn(ctx, "forgetting the new shares that were presented", how.restart); err != nil {
			return err
		}
	}
	return c.InTurn(ctx, "cancelling the rekey", func(ctx context.Context, c *api.Client) error { return how.cancel(ctx, c, nonce) })
}

// kept returns the encrypted shares that Vault keeps; nil if there are none.
func (s *Seal) kept(ctx context.Context, c *vaultapi.Client) (out *api.RekeyRetrieveResponse, err error) {
	how, err := s.how(ctx, c)
	if err != nil {
		return nil, err
	}
	err = c.InTurn(ctx, "asking for the encrypted shares", func(ctx context.Context, c *api.Client) (err error) {
		out, err = how.fetch(ctx, c)
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
	how, err := s.how(ctx, c)
	if err != nil {
		return err
	}
	return c.InTurn(ctx, "removing the encrypted shares", how.remove)
}
