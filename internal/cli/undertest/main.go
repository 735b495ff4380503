// Command undertest is keyturn as its tests run it: with the hooks of package hooks, and
// without what only the tests need.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	p := hooks.Program(os.Args[1:])
	code := p.Run(ctx)
	stop()
	os.Exit(code)
}
