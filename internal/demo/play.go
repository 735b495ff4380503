package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/keyturn/keyturn/internal/scenario"
	"github.com/keyturn/keyturn/internal/testserver"
)

// rounds is how often each way rotates.
const rounds = 2

// demo is the play, and what came of it.
type demo struct {
	out     io.Writer
	options scenario.Options
	scene   *scenario.Scenario
	acts    int

	keyturn, script side
	record          scenario.Record
	audit           scenario.Run
}

// side is what one way of rotating came to.
type side struct {
	rotations []scenario.Rotation
	total     testserver.Totals // of the whole life of its stack
	restarts  map[string]int    // by slot
}

func (d *demo) sayf(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// actf begins a new part.
func (d *demo) actf(format string, args ...any) {
	d.acts++
	d.sayf("\n── %d. %s ──", d.acts, fmt.Sprintf(format, args...))
}

// play is the whole play.
func (d *demo) play(ctx context.Context) error {
	engine, postgres, folder := d.scene.Where()
	d.sayf("\n  Docker engine  %s\n  PostgreSQL     %s\n  folder         %s", engine, postgres, folder)
	if err := d.playKeyturn(ctx); err != nil {
		return err
	}
	if err := d.playScript(ctx); err != nil {
		return err
	}
	d.actf("What came of it")
	d.table()
	return d.verdict()
}

// playKeyturn takes a stack over and rotates it.
func (d *demo) playKeyturn(ctx context.Context) error {
	d.actf("A stack as people deploy it")
	stack, err := d.scene.Deploy(ctx, "orders")
	if err != nil {
		return err
	}
	d.sayf("  the service %s runs: 3 tasks; one login, %q, that owns its tables; its password in the secret %s.", stack.Service(), stack.Name, stack.Secret)
	d.sayf("  Each task logs in every 20 ms with a new connection and the credential from its mount, with no fallback.")

	d.actf("Keyturn takes it over, and restarts nothing")
	d.sayf("\n$ cat .github/keyturn.yml\n%s", indent(stack.Config()))
	if err := stack.Adopt(ctx); err != nil {
		return err
	}
	plan, err := d.scene.Keyturn(ctx, "plan", stack.Credential())
	if err := errors.Join(err, plan.OK()); err != nil {
		return err
	}
	for n := 1; n <= rounds; n++ {
		kill := n == rounds
		d.actf("Rotation %d by Keyturn%s", n, map[bool]string{true: ", killed with -9 in the middle of cutover, and resumed"}[kill])
		r, err := stack.Rotate(ctx, kill)
		if err != nil {
			return err
		}
		d.keyturn.rotations = append(d.keyturn.rotations, r)
		d.sayf("\n  %s logins tried meanwhile, %s failed", number(r.Tried), number(r.Failed))
	}
	if d.audit, err = d.scene.Keyturn(ctx, "audit", "verify"); err != nil {
		return err
	}
	if d.record, err = d.scene.Journal(ctx); err != nil {
		return err
	}
	return d.keyturn.close(ctx, stack)
}

// playScript does the same by the script, for a stack of the same kind.
func (d *demo) playScript(ctx context.Context) error {
	d.actf("Beside it: the script that people use today")
	stack, err := d.scene.Deploy(ctx, "billing")
	if err != nil {
		return err
	}
	d.sayf("  the service %s runs: the same image, load and update settings, a login of its own", stack.Service())
	for n := 1; n <= rounds; n++ {
		r, err := stack.RunScript(ctx, n)
		if err != nil {
			return err
		}
		d.script.rotations = append(d.script.rotations, r)
		d.sayf("\n  %s logins tried meanwhile, %s failed", number(r.Tried), number(r.Failed))
	}
	return d.script.close(ctx, stack)
}

// close takes the stack down, so that all its logins are counted.
func (s *side) close(ctx context.Context, stack *scenario.Stack) error {
	if err := stack.Remove(ctx); err != nil {
		return err
	}
	var err error
	if s.total, err = stack.Load(); err != nil {
		return err
	}
	s.restarts, err = stack.Restarts()
	return err
}
