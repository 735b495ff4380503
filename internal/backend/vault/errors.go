package vault

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// An answer is what Vault said instead of success, in one line.
type answer struct {
	status int
	text   string
}

func (a *answer) Error() string {
	if a.text == "" {
		return fmt.Sprint(a.status)
	}
	return fmt.Sprintf("%d: %s", a.status, a.text)
}

// answered returns what Vault said; nil if it did not.
func answered(err error) *answer {
	if e, ok := errors.AsType[*api.ResponseError](err); ok {
		return &answer{e.StatusCode, strings.Join(strings.Fields(strings.Join(e.Errors, "; ")), " ")}
	}
	a, _ := errors.AsType[*answer](err)
	return a
}

// isAbsent reports whether an error says that there is no secret-id with the accessor that
// was asked for: 404, or of older releases 500.
func isAbsent(err error) bool {
	a := answered(err)
	return a != nil && strings.Contains(a.text, "failed to find accessor entry")
}

// final are answers with status 500 that are no trouble of Vault's, but what it makes of
// the request: see builtin/credential/approle of Vault.
var final = []string{"already registered", "subset relationship", "failed to find accessor entry", "does not exist", "failed to decrypt"}

func (a *answer) isFinal() bool {
	return slices.ContainsFunc(final, func(f string) bool { return strings.Contains(a.text, f) })
}

// wrap returns an error of Vault with what was being done, a class and a hint. What Vault
// refused was not done; without an answer, or with one of a Vault that is sealed, has no
// leader or too much to do, nothing is known.
func wrap(url, doing string, err error) error {
	if err == nil {
		return nil
	}
	at := "vault: "
	if url != "" {
		at += url + ": "
	}
	said := answered(err)
	if errors.Is(err, remote.ErrRedirected) {
		return rotation.Errorf(rotation.Unknown, "no node leads, or its standbys do not forward: name the one that leads", "%s%s: it sends to another node", at, doing)
	}
	if said == nil {
		return rotation.Errorf(rotation.Unknown, "is it running, and can it be reached from here?", "%s%s: %s", at, doing, remote.Cause(err))
	}
	switch status := said.status; {
	case status == http.StatusForbidden:
		return rotation.Errorf(rotation.Refused, "give the administrator's token the policy of docs/backends/vault.md; has it ended? see: vault token lookup", "%s%s: %w", at, doing, said)
	case status == http.StatusServiceUnavailable:
		return rotation.Errorf(rotation.Unknown, "is it sealed? see: vault status", "%s%s: %w", at, doing, said)
	case status == http.StatusTooManyRequests:
		return rotation.Errorf(rotation.Unknown, "a rate limit quota is reached; try again", "%s%s: %w", at, doing, said)
	case status >= http.StatusInternalServerError && !said.isFinal():
		return rotation.Errorf(rotation.Unknown, "has the cluster a leader? see: vault operator raft list-peers", "%s%s: %w", at, doing, said)
	case status == http.StatusNotFound:
		return rotation.Errorf(rotation.Refused, "is approle.mount right? see: vault auth list", "%s%s: %w", at, doing, said)
	}
	return rotation.Errorf(rotation.Failed, "", "%s%s: %w", at, doing, said)
}

// refused is an error of ours.
func refused(hint, format string, args ...any) error {
	return rotation.Errorf(rotation.Refused, hint, "vault: %w", fmt.Errorf(format, args...))
}
