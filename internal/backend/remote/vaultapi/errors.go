package vaultapi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// An Answer is what Vault said instead of success, in one line.
type Answer struct {
	Status int
	Text   string
}

func (a *Answer) Error() string {
	if a.Text == "" {
		return fmt.Sprint(a.Status)
	}
	return fmt.Sprintf("%d: %s", a.Status, a.Text)
}

// Answered returns what Vault said; nil if it did not.
func Answered(err error) *Answer {
	if e, ok := errors.AsType[*api.ResponseError](err); ok {
		return &Answer{e.StatusCode, strings.Join(strings.Fields(strings.Join(e.Errors, "; ")), " ")}
	}
	a, _ := errors.AsType[*Answer](err)
	return a
}

// final are answers with status 500 that are no trouble of Vault's, but what it makes of
// the request: see builtin/credential/approle of Vault.
var final = []string{"already registered", "subset relationship", "failed to find accessor entry", "does not exist", "failed to decrypt"}

func (a *Answer) isFinal() bool {
	return slices.ContainsFunc(final, func(f string) bool { return strings.Contains(a.Text, f) })
}

// undone reports whether a request that failed certainly had no effect: nobody was there, or who
// answered is not who decides.
func undone(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" || errors.Is(err, remote.ErrRedirected) {
		return true
	}
	a := Answered(err)
	return a != nil && (a.Status == http.StatusServiceUnavailable && strings.Contains(a.Text, "sealed") || a.Status == http.StatusTooManyRequests)
}

// Wrap returns an error of Vault with what was being done, a class and a hint. What Vault
// refused was not done; without an answer, or with one of a Vault that is sealed, has no
// leader or too much to do, nothing is known.
func (w Words) Wrap(url, doing string, err error) error {
	if err == nil {
		return nil
	}
	at := w.Name + ": "
	if url != "" {
		at += url + ": "
	}
	said := Answered(err)
	if errors.Is(err, remote.ErrRedirected) {
		return rotation.Errorf(rotation.Unknown, "no node leads, or its standbys do not forward: name the one that leads", "%s%s: it sends to another node", at, doing)
	}
	if said == nil {
		return rotation.Errorf(rotation.Unknown, "is it running, and can it be reached from here?", "%s%s: %s", at, doing, remote.Cause(err))
	}
	switch status := said.Status; {
	case status == http.StatusForbidden:
		return rotation.Errorf(rotation.Refused, "give the administrator's token the policy of docs/backends/"+w.Page+"; has it ended? see: vault token lookup", "%s%s: %w", at, doing, said)
	case status == http.StatusServiceUnavailable:
		return rotation.Errorf(rotation.Unknown, "is it sealed? see: vault status", "%s%s: %w", at, doing, said)
	case status == http.StatusTooManyRequests:
		return rotation.Errorf(rotation.Unknown, "a rate limit quota is reached; try again", "%s%s: %w", at, doing, said)
	case status >= http.StatusInternalServerError && !said.isFinal():
		return rotation.Errorf(rotation.Unknown, "has the cluster a leader? see: vault operator raft list-peers", "%s%s: %w", at, doing, said)
	case status == http.StatusNotFound:
		return rotation.Errorf(rotation.Refused, w.Missing, "%s%s: %w", at, doing, said)
	}
	return rotation.Errorf(rotation.Failed, "", "%s%s: %w", at, doing, said)
}

// Refused is an error of the backend's own.
func (w Words) Refused(hint, format string, args ...any) error {
	return rotation.Errorf(rotation.Refused, hint, "%s: %w", w.Name, fmt.Errorf(format, args...))
}
