package certificate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/rotation"
)

// refused returns an error of class Refused.
func refused(hint, format string, args ...any) error {
	return rotation.Errorf(rotation.Refused, hint, "certificate: "+format, args...)
}

// unknown returns an error of class Unknown.
func unknown(hint, format string, args ...any) error {
	return rotation.Errorf(rotation.Unknown, hint, "certificate: "+format, args...)
}

// names that a problem of an ACME server has beyond those of the client's module.
const (
	accountIsMissing = acme.ProblemTypeAccountDoesNotExist
	namespace        = acme.ProblemTypeNamespace // before the name of each
	unauthorized     = acme.ProblemTypeUnauthorized
)

// later are the problems that pass by themselves.
var later = []string{namespace + "serverInternal", namespace + "rateLimited", acme.ProblemTypeBadNonce}

// ofNames are those of challenges: the authority looked, and did not find what it should.
var ofNames = []string{namespace + "connection", namespace + "dns", namespace + "incorrectResponse",
	namespace + "tls", namespace + "caa"}

const ofChallenge = "the authority must find the challenge where it looks: at port 80 of the name, or in its DNS; CAA records must allow the authority"

// shown is wrap of a challenge: to call that "unauthorized", too, is to have found another answer.
func shown(name string, err error) error {
	wrapped := wrap(fmt.Sprintf("showing whose %s is", name), err)
	if is(err, unauthorized) && rotation.ClassOf(wrapped) == rotation.Failed {
		return rotation.Classify(rotation.Failed, ofChallenge, wrapped)
	}
	return wrapped
}

// wrap says what was being done when the ACME server, or the way to it, failed. Only what
// the server itself says in a problem document is a refusal; everything else is no answer.
func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	var own *rotation.Error
	p, told := problemOf(err)
	switch {
	case errors.As(err, &own):
		return fmt.Errorf("certificate: %s: %w", doing, err)
	case !told:
		hint := "look whether the directory's URL is right, and the authority's own page of its status"
		if errors.Is(err, context.Canceled) {
			hint = ""
		}
		return rotation.Classify(rotation.Unknown, hint, fmt.Errorf("certificate: %s: %w", doing, err))
	case slices.Contains(later, p.Type) || p.Status >= http.StatusInternalServerError || p.Status == http.StatusTooManyRequests:
		return rotation.Classify(rotation.Unknown, "run it again later", fmt.Errorf("certificate: %s: %w", doing, err))
	case slices.Contains(ofNames, p.Type):
		return rotation.Classify(rotation.Failed, ofChallenge, fmt.Errorf("certificate: %s: %w", doing, err))
	}
	return rotation.Classify(rotation.Failed, "", fmt.Errorf("certificate: %s: %w", doing, err))
}

// problemOf returns the problem document in an error, if the server sent one.
func problemOf(err error) (acme.Problem, bool) {
	if p, ok := errors.AsType[acme.Problem](err); ok {
		return p, true
	}
	if p, ok := errors.AsType[*acme.Problem](err); ok && p != nil {
		return *p, true
	}
	return acme.Problem{}, false
}

// is reports whether an ACME server named a problem so.
func is(err error, problem string) bool {
	p, ok := problemOf(err)
	return ok && p.Type == problem
}

// missing reports whether an ACME server does not know what it was asked for.
func missing(err error) bool {
	p, ok := problemOf(err)
	return ok && p.Status == http.StatusNotFound
}
