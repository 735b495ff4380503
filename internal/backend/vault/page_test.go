package vault_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/backend/vault"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// TestPage reads every section that docs/backends/vault.md shows.
func TestPage(t *testing.T) {
	rotationtest.Page(t, "vault", vault.Section, vault.Settings{}.Fields(), vault.Settings{}, vault.AppRole{}, vault.Shares{})
}
