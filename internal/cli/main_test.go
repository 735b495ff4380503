package cli_test

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli"
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

// The test binary is keyturn itself if this variable says so: for tests that
// kill it, or let two of them meet.
const asProgram = "KEYTURN_TEST_AS_PROGRAM"

// crashAt makes the program kill itself at the n-th record or effect.
const crashAt = "KEYTURN_TEST_CRASH_AT"

// asVersion is the version that the program is linked as.
const asVersion = "KEYTURN_TEST_VERSION"

// clockAhead moves the program's clock, by a duration.
const clockAhead = "KEYTURN_TEST_CLOCK"

// atOnce lets the program write to GitHub without a pause between two writes.
const atOnce = "KEYTURN_TEST_AT_ONCE"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(program())
	}
	servers.engine.Options.TLS = true
	servers.bao.OpenBao = true
	os.Exit(testserver.Main(m, &servers.postgres, &servers.engine, &servers.consul, &servers.kafka, &servers.vault, &servers.bao, &servers.pebble))
}

func program() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cli.Version = os.Getenv(asVersion)
	p := cli.Program{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Hook: heldHook()}
	if d, err := time.ParseDuration(os.Getenv(clockAhead)); err == nil {
		p.Now = func() time.Time { return time.Now().Add(d) }
	}
	if os.Getenv(atOnce) != "" {
		p.Between = -1
	}
	if n, err := strconv.ParseInt(os.Getenv(crashAt), 10, 64); err == nil {
		p.Hook = dieAt(n)
	}
	if at := os.Getenv(dieAtPoint); at != "" {
		p.Hook = dieAtNamed(at)
	}
	return p.Run(ctx)
}

// dieAt returns a hook that says at which point it is on file descriptor 3, and
// kills the process at the n-th.
func dieAt(n int64) func(string) {
	var count atomic.Int64
	points := os.NewFile(3, "points")
	return func(at string) {
		_, _ = points.WriteString(at + "\n") // read by the test; a closed pipe shows there
		if count.Add(1) == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}
