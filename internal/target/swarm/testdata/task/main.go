// Command task is what the services and the probes of the tests run.
//
// A value that contains "sick" makes its tasks unhealthy, "crash" makes them
// fail at once, and "late" healthy, or done, only after two seconds.
package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

func main() {
	os.Exit(run())
}

func run() int {
	command := "serve"
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	data, _ := os.ReadFile(os.Getenv("PASSWORD_FILE"))
	value := string(data)
	switch command {
	case "probe":
		return swarm.RunProbe(context.Background(), os.Args[3], os.Args[5], login, os.Stdout)
	case "relay":
		return relay(os.Args[2:])
	case "check":
		if _, err := os.Stat("/tmp/up"); err != nil && strings.Contains(value, "late") || strings.Contains(value, "sick") {
			return 1
		}
		return 0
	case "once":
		if strings.Contains(value, "late") {
			time.Sleep(2 * time.Second)
		}
		if strings.Contains(value, "crash") {
			return 3
		}
		return 0
	}
	if strings.Contains(value, "crash") {
		return 3
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if strings.Contains(value, "late") {
		time.AfterFunc(2*time.Second, func() { _ = os.WriteFile("/tmp/up", nil, 0o600) })
	}
	<-ctx.Done()
	return 0
}

// relay is what keyturn relay does.
func relay(args []string) int {
	err := error(nil)
	switch {
	case len(args) == 2:
		err = swarm.RunRelay(context.Background(), args[1], os.Stdin, os.Stdout)
	case len(args) == 1:
		err = swarm.AnchorRelay(os.Stdin, os.Stdout, func() error { return syscall.Kill(1, syscall.SIGTERM) })
	default:
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err = swarm.HoldRelay(ctx, os.DirFS("/proc"))
	}
	if err != nil {
		return 1
	}
	return 0
}

// login answers what the password says.
func login(backend string) rotation.Login {
	if backend != "fake" {
		return nil
	}
	return func(ctx context.Context, spec rotation.ProbeSpec, m rotation.Material) rotation.ProbeResult {
		answer, reason := rotation.Inconclusive, "the server is starting up"
		switch value := string(m["password"].Reveal()); {
		case strings.HasPrefix(value, "good"):
			answer, reason = rotation.Alive, ""
		case strings.HasPrefix(value, "bad"):
			answer, reason = rotation.Dead, "password authentication failed for "+spec.Identity
		case strings.HasPrefix(value, "ca") && strings.Contains(string(spec.CA), "BEGIN CERTIFICATE"):
			answer, reason = rotation.Alive, ""
		case strings.HasPrefix(value, "unfit"):
			answer, reason = rotation.Unfit, "works without its rights"
		case strings.HasPrefix(value, "slow"):
			time.Sleep(time.Minute)
		case strings.HasPrefix(value, "panic"):
			panic("the login broke")
		}
		return rotation.ProbeResult{Endpoints: []rotation.EndpointResult{{Endpoint: spec.Endpoints[0], Answer: answer, Reason: reason}}}.Summarize()
	}
}
