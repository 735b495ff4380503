// Servers builds the servers and tools of the tests that come as source, and fetches those
// that come as packages, into the user's cache, so that no test has to wait for that. What is
// there already is not built again.
package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"time"

	"github.com/keyturn/keyturn/internal/testserver"
)

// tools are by module, and package of its main.
var tools = [][2]string{
	{"tools/act", "github.com/nektos/act"},
	{"tools/consul", "github.com/hashicorp/consul"},
	{"tools/pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble"},
	{"tools/vault", "github.com/keyturn/keyturn/tools/vault"},
	{"tools/stepca", "github.com/keyturn/keyturn/tools/stepca"},
}

func main() {
	ctx := context.Background()
	for _, t := range tools {
		ready("built "+path.Base(t[1]), func() error {
			_, err := testserver.BuildTool(ctx, t[0], t[1])
			return err
		})
	}
	ready("fetched Kafka", func() error {
		_, err := testserver.FetchKafka(ctx)
		return err
	})
	ready("fetched OpenBao", func() error {
		_, err := testserver.FetchOpenBao(ctx)
		return err
	})
}

// ready makes something, and says what took its time.
func ready(what string, by func() error) {
	begun := time.Now()
	if err := by(); err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
	if took := time.Since(begun); took > time.Second {
		fmt.Printf("servers: %s in %s\n", what, took.Round(time.Second))
	}
}
