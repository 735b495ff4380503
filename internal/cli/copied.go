package cli

import (
	"context"
	"fmt"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// maxCopied is how many entries of a journal on GitHub the Swarm keeps a copy of: some
// megabytes at most.
const maxCopied = 20000

// copied is a journal on GitHub as the Swarm remembers it, for an emergency in which
// GitHub does not answer.
type copied struct {
	*journal.Copy
	owner string
}

// Enter implements [home].
func (copied) Enter(string) (func() error, error) { return func() error { return nil }, nil }

// Alive implements [home]: nothing is known of other runs.
func (copied) Alive(string) (alive, known bool) { return false, false }

// keepCopy keeps in the Swarm what the journal on GitHub holds. What cannot be kept now is
// kept by the next run.
func (w *wiring) keepCopy(ctx context.Context, far branchHome) {
	if w.swarm == nil {
		return
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	entries := far.Known()
	if len(entries) == 0 || len(entries) > maxCopied {
		return
	}
	if err := journal.Keep(ctx, swarmCopy{w.swarm.Copy(far.owner())}, swarm.MaxPart, entries); err != nil {
		w.app.log.Debug("keeping a copy of the journal in the Swarm", "error", err)
	}
}

// swarmCopy is a copy of a journal in the Swarm.
type swarmCopy struct{ *swarm.Copy }

// Parts implements [journal.Parts].
func (c swarmCopy) Parts(ctx context.Context) ([]journal.Part, error) {
	parts, err := c.Copy.Parts(ctx)
	out := make([]journal.Part, len(parts))
	for i, p := range parts {
		out[i] = journal.Part(p)
	}
	return out, err
}

// Put implements [journal.Parts].
func (c swarmCopy) Put(ctx context.Context, p journal.Part) error {
	return c.Copy.Put(ctx, swarm.Part(p))
}

// openCopy opens the copy of a journal on GitHub that does not answer.
func (a *app) openCopy(ctx context.Context, cfg *config.Config, owner string) (home, error) {
	if cfg.Swarm == nil {
		return nil, fmt.Errorf("there is no Swarm that could have a copy of the journal")
	}
	docker, err := a.docker(cfg.Swarm)
	if err != nil {
		return nil, err
	}
	defer docker.Close()
	c, err := journal.OpenCopy(ctx, swarmCopy{swarm.New(docker.Client, swarm.Options{}).Copy(owner)})
	if err != nil {
		return nil, err
	}
	return copied{c, owner}, nil
}
