package testserver

import (
	"errors"
	"os"
	"testing"
)

// ErrMissing says that this machine cannot start the server at all: its
// programs are not installed, or the rights to run it are missing. The error
// around it names what to do.
var ErrMissing = errors.New("test server is not available here")

// Require ends the test when err is not nil. A missing server ([ErrMissing])
// skips the test, except in CI (CI=true), where it is a failure as every
// other error is everywhere.
func Require(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv("CI") != "true":
		t.Skipf("skipped: %v (with CI=true this is a failure)", err)
	default:
		t.Fatalf("starting a test server: %v", err)
	}
}
