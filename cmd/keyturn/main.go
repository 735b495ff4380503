// Command keyturn rotates the credentials of services that run on Docker Swarm,
// without a second of downtime.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/keyturn/keyturn/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	program := cli.Program{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr}
	code := program.Run(ctx)
	os.Exit(code)
}
