package consul

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// What Consul says. A token that is read by its accessor and is not there is "token does not
// exist: ACL not found" or, of older servers, 404; a token that asks and is not known is
// "ACL not found" alone. See acl/errors.go and agent/consul/acl_endpoint.go of Consul.
const (
	textUnknown = "ACL not found"
	textAbsent  = "token does not exist"
	textExpired = "token has expired"
	textDenied  = "Permission denied"
)

// final are answers with status 500 that are no trouble of Consul's, but what it makes of the
// request: see agent/consul/auth/token_writer.go.
var final = []string{"Invalid Token", "No such ACL", "Cannot upsert tokens"}

func isFinal(text string) bool {
	return slices.ContainsFunc(final, func(f string) bool { return strings.Contains(text, f) })
}

// refusal returns what Consul answered, if it did, and with which status.
func refusal(err error) (text string, status int) {
	if e, ok := errors.AsType[api.StatusError](err); ok {
		return e.Body, e.Code
	}
	return "", 0
}

// isAbsent reports whether an error says that there is no token with the accessor that was
// asked for.
func isAbsent(err error) bool {
	text, status := refusal(err)
	return status == http.StatusNotFound || status == http.StatusForbidden && (strings.Contains(text, textAbsent) || strings.Contains(text, textExpired))
}

// isUnknown reports whether a token that asked is not known.
func isUnknown(err error) bool {
	text, status := refusal(err)
	return status == http.StatusForbidden && strings.Contains(text, textUnknown)
}

// isStranger is isUnknown, of any question but for the token itself or another object: those
// may be what is not there.
func isStranger(err error) bool {
	text, _ := refusal(err)
	return isUnknown(err) && !strings.Contains(text, "does not exist") && !strings.Contains(text, textExpired)
}

// errBehind is that a server does not know, for as long as it was asked, who the leader knows.
var errBehind = errors.New("it does not know the administrator's token yet, and the leader does")

// wrap returns an error of Consul with what was being done, a class and a hint. What
// Consul refused was not done; without an answer, or with one of a Consul that has no leader
// or too much to do, nothing is known.
func wrap(url, doing string, err error) error {
	if err == nil {
		return nil
	}
	at := "consul: "
	if url != "" {
		at += url + ": "
	}
	text, status := refusal(err)
	switch {
	case errors.Is(err, errBehind):
		return rotation.Errorf(rotation.Unknown, "was it started a moment ago? run it again; is it part of the cluster? see: consul operator raft list-peers", "%s%s: %w", at, doing, err)
	case status == 0:
		return rotation.Errorf(rotation.Unknown, "is it running, and can it be reached from here?", "%s%s: %s", at, doing, remote.Cause(err))
	case status == http.StatusForbidden && strings.Contains(text, textDenied):
		return rotation.Errorf(rotation.Refused, `give the administrator's token a policy with acl = "write"`, "%s%s: %w", at, doing, err)
	case isUnknown(err):
		return rotation.Errorf(rotation.Refused, "is it the token of this datacenter, and was it deleted?", "%s%s: Consul does not know the administrator's token: %w", at, doing, err)
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError && !isFinal(text):
		return rotation.Errorf(rotation.Unknown, "has the cluster a leader? see: consul operator raft list-peers", "%s%s: %w", at, doing, err)
	}
	return rotation.Errorf(rotation.Failed, "", "%s%s: %w", at, doing, err)
}

// refused is an error of ours.
func refused(hint, format string, args ...any) error {
	return rotation.Errorf(rotation.Refused, hint, "consul: %w", fmt.Errorf(format, args...))
}
