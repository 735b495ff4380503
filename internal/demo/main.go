// Command demo shows a credential being rotated under load: "make demo", or
// "go run ./internal/demo" as root.
//
// It starts a Docker engine and a PostgreSQL server of its own, deploys a
// service of three tasks that log in again and again, and lets Keyturn take it
// over and rotate its credential twice in a row; the second time it is killed in
// the middle and goes on. Then the script that people use today does the same
// for a second service. Every command is printed with what it says. It ends with
// a table, and with status 1 if anything was not as promised.
//
// Nothing that the machine has is touched, and nothing is left behind, also
// after Ctrl-C or a kill.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/keyturn/keyturn/internal/scenario"
	"github.com/keyturn/keyturn/internal/testserver"
)

func main() {
	dual := flag.Bool("dual", false, "mount both credentials from prepare to cutover, which costs a second rolling update")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unknown argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the demo at once; the servers' guards clean up
	d := &demo{out: os.Stdout, options: scenario.Options{Mounts: "switch", Out: os.Stdout}}
	if *dual {
		d.options.Mounts = "dual"
	}
	os.Exit(finish(os.Stderr, ctx.Err, d.run(ctx)))
}

// finish says how it went and returns the exit code.
func finish(w io.Writer, stopped func() error, err error) int {
	switch left := errors.Is(err, scenario.ErrLeft); {
	case stopped() != nil && left:
		fmt.Fprintf(w, "\ndemo: stopped; %v\n", err)
		return 130
	case stopped() != nil:
		fmt.Fprintln(w, "\ndemo: stopped; everything that it made is removed")
		return 130
	case errors.Is(err, testserver.ErrMissing):
		fmt.Fprintf(w, "demo: %v\n  make demo installs what is missing; it needs root, or sudo that does not ask: sudo -v before it\n", err)
		return 1
	case err != nil:
		fmt.Fprintf(w, "\ndemo: %v\n", err)
		return 1
	}
	return 0
}

// run sets the scene, plays it, and takes it down whatever happens.
func (d *demo) run(ctx context.Context) (err error) {
	remove, err := testserver.Scratch()
	if err != nil {
		return err
	}
	defer func() {
		if left := remove(); left != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", scenario.ErrLeft, left))
		}
	}()
	d.sayf("Keyturn's demo. It starts a Docker engine and a PostgreSQL server of its own, and builds")
	d.sayf("Keyturn and the load application; Ctrl-C ends it and removes everything.")
	if d.scene, err = scenario.Start(ctx, d.options); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.scene.Stop()) }()
	return d.play(ctx)
}
