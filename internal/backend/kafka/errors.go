package kafka

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A refusal is what a broker answers instead of doing something, with its own words.
type refusal struct {
	kind    *kerr.Error
	message string
}

func (r *refusal) Error() string { return r.kind.Message + ": " + r.message }
func (r *refusal) Unwrap() error { return r.kind }

// refusalOf returns what an error code says, nil for none.
func refusalOf(code int16, message *string) error {
	kind := kerr.TypedErrorForCode(code)
	switch {
	case kind == nil:
		return nil
	case message == nil || *message == "":
		return kind
	}
	return &refusal{kind, *message}
}

// refusalIn returns the first that results say.
func refusalIn[R any](results []R, of func(R) (code int16, message *string)) error {
	for _, r := range results {
		if err := refusalOf(of(r)); err != nil {
			return err
		}
	}
	return nil
}

// wrap returns an error of a broker with what was being done, a class and a hint. What a broker
// refused was not done; without an answer, or with one of a cluster that has no controller or
// too much to do, nothing is known.
func wrap(address, doing string, err error) error {
	if err == nil {
		return nil
	}
	at := "kafka: "
	if address != "" {
		at += address + ": "
	}
	kind, answered := errors.AsType[*kerr.Error](err)
	switch {
	case rotation.ClassOf(err) == rotation.Refused:
		return err // an error of ours
	case !answered:
		hint := "is it running, and can it be reached from here?"
		if strings.Contains(address, "_") {
			hint += " Java refuses TLS to a name with an underscore: give the broker another one, such as an alias in the network"
		}
		return rotation.Errorf(rotation.Unknown, hint, "%s%s: %s", at, doing, remote.Cause(err))
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return rotation.Errorf(rotation.Refused, "is it the password of that user, for that mechanism?", "%s%s: the broker refuses the login: %w", at, doing, err)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return rotation.Errorf(rotation.Refused, "see sasl.enabled.mechanisms of the broker, and its listener", "%s%s: the broker does not take this mechanism: %w", at, doing, err)
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return rotation.Errorf(rotation.Refused, "allow the administrator ALTER, DESCRIBE, ALTER_CONFIGS and DESCRIBE_CONFIGS on the cluster", "%s%s: %w", at, doing, err)
	case errors.Is(err, kerr.SecurityDisabled):
		return rotation.Errorf(rotation.Refused, "set authorizer.class.name: without ACLs a client that is connected cannot be stopped", "%s%s: %w", at, doing, err)
	case kind.Retriable, errors.Is(err, kerr.UnknownServerError):
		return rotation.Errorf(rotation.Unknown, "has the cluster a controller? see: kafka-metadata-quorum.sh", "%s%s: %w", at, doing, err)
	}
	return rotation.Errorf(rotation.Failed, "", "%s%s: %w", at, doing, err)
}

// refused is an error of ours.
func refused(hint, format string, args ...any) error {
	return rotation.Errorf(rotation.Refused, hint, "kafka: %w", fmt.Errorf(format, args...))
}
