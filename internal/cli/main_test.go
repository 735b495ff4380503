package cli_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

var servers struct {
	postgres testserver.SharedPostgres
	engine   testserver.SharedEngine
	consul   testserver.SharedConsul
	kafka    testserver.SharedKafka
	vault    testserver.SharedVault
	bao      testserver.SharedVault
	pebble   testserver.SharedPebble // of accounts alone: who orders certificates has one of its own
}

// program returns the path of keyturn with the hooks of package hooks, for tests that kill
// it, or let two of them meet.
func program(t testing.TB) string {
	t.Helper()
	path, err := builtProgram()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builtProgram = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return testserver.BuildGo(ctx, "./internal/cli/undertest")
})

func TestMain(m *testing.M) {
	servers.engine.Options.TLS = true
	servers.bao.OpenBao = true
	os.Exit(testserver.Main(m, &servers.postgres, &servers.engine, &servers.consul, &servers.kafka, &servers.vault, &servers.bao, &servers.pebble))
}
