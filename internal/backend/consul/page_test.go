package consul_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/backend/consul"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
)

// TestPage reads every section that docs/backends/consul.md shows.
func TestPage(t *testing.T) {
	fields := append(consul.Settings{}.Fields(), consul.Settings{GossipKey: &consul.GossipKey{}}.Fields()...)
	rotationtest.Page(t, "consul", consul.Section, fields, consul.Settings{})
}
