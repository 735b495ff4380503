package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/rotation"
)

// wrap returns an error of GitHub with what was being done, a class and a hint. What
// GitHub refused was not done; without an answer, or with one of a GitHub that fails
// or limits us, nothing is known.
func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, cause) {
			return rotation.Errorf(rotation.Unknown, "", "github: %s: %w", doing, cause)
		}
	}
	class := rotation.Failed
	if githubapp.Unanswered(err) {
		class = rotation.Unknown
	}
	return rotation.Errorf(class, githubapp.Hint(err), "github: %s: %w", doing, err)
}

// status returns what GitHub answered when it refused, or 0.
func status(err error) int {
	if refused, ok := errors.AsType[*github.ErrorResponse](err); ok && refused.Response != nil {
		return refused.Response.StatusCode
	}
	return 0
}

func notFound(err error) bool { return status(err) == http.StatusNotFound }

// refused is an error of ours.
func refused(hint, format string, args ...any) error {
	return rotation.Errorf(rotation.Refused, hint, "github: %w", fmt.Errorf(format, args...))
}
