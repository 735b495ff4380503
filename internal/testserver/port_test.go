package testserver_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/testserver"
)

// TestFreePort asks for so many ports that chance would give some of them twice.
func TestFreePort(t *testing.T) {
	got := map[int]bool{}
	for range 800 {
		port := testserver.FreePort(t)
		if got[port] {
			t.Fatalf("port %d is given to two", port)
		}
		got[port] = true
	}
}
