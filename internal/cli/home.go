package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/journal/branch"
)

// home is where a journal lives, and what is known there of other runs.
type home interface {
	journal.Home

	// Enter makes it known that a run is alive, until release.
	Enter(run string) (release func() error, err error)

	// Alive reports whether a run is alive, if that is known.
	Alive(run string) (alive, known bool)
}

var _ home = (*journal.File)(nil)

// branchHome is a journal on GitHub. Which runs are alive, GitHub knows itself.
type branchHome struct {
	*branch.Branch
	hub   *hub
	alive func(run string) (alive, known bool)
}

// Enter implements [home].
func (branchHome) Enter(string) (func() error, error) { return func() error { return nil }, nil }

// runID names a run: on GitHub by the run, its attempt and the runner that it is
// on, so that another one can ask what became of it.
func (a *app) runID(unique string) string {
	id, attempt := a.Getenv("GITHUB_RUN_ID"), a.Getenv("GITHUB_RUN_ATTEMPT")
	if id == "" || attempt == "" {
		return unique
	}
	return strings.Join([]string{id, attempt, unique}, ".")
}

// Alive implements [home].
func (h branchHome) Alive(run string) (alive, known bool) { return h.alive(run) }

// aliveRun reports whether a run on GitHub is known to be dead: its attempt has
// ended. Of one that goes on nothing is known, for the job may have ended.
func aliveRun(ctx context.Context, h *hub, run string) (alive, known bool) {
	parts := strings.Split(run, ".")
	if len(parts) != 3 {
		return false, false
	}
	id, err := strconv.ParseInt(parts[0], 10, 64)
	attempt, err2 := strconv.Atoi(parts[1])
	if errors.Join(err, err2) != nil {
		return false, false
	}
	found, _, err := h.Client(mayWork).Actions.GetWorkflowRunAttempt(ctx, h.owner, h.repo, id, attempt, nil)
	if err != nil {
		return false, false
	}
	return false, found.GetStatus() == "completed"
}

// openBranch opens the journal on GitHub, and makes it unless who asks only looks.
func (a *app) openBranch(ctx context.Context, cfg *config.Config, look bool) (home, string, error) {
	h, err := a.onGitHub(cfg)
	if err != nil {
		return nil, "", err
	}
	may := mayWork
	if look {
		may = mayRead
	}
	made := branchHome{journalBranch(h.Client(may), cfg), h,
		func(run string) (bool, bool) { return aliveRun(ctx, h, run) }}
	head, err := made.Head(ctx)
	if err != nil && a.urgent && silent(err) {
		old, failed := a.openCopy(ctx, cfg, made.owner())
		if failed != nil {
			return nil, "", errors.Join(err, failed)
		}
		a.notef("GitHub does not answer: the copy of the journal in the Swarm is used, and what is done now is sent by the next run")
		return old, "", nil
	}
	if errors.Is(err, fs.ErrNotExist) && look {
		return nil, fmt.Sprintf("there is no journal yet on %v: nothing was adopted or rotated with it", made), nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := made.Create(ctx, journal.Genesis(a.Now(), journal.NewKey())); err != nil {
			return nil, "", err
		}
		head, err = made.Head(ctx)
	}
	if err != nil {
		return nil, "", err
	}
	if head.Seq == 0 {
		return nil, "", fmt.Errorf("the journal on %v has not even its first entry: %w", made,
			&journal.Fault{Seq: 1, Line: 1, Kind: journal.Truncated, Detail: "every journal begins with an entry of its own"})
	}
	return made, "", nil
}

// journalBranch is the journal's branch, as a client may use it.
func journalBranch(client *githubapp.Client, cfg *config.Config) *branch.Branch {
	return branch.New(branch.Options{Client: client.Client, Owner: client.Owner, Repo: client.Repo, Name: branchName(cfg)})
}

func branchName(cfg *config.Config) string {
	if cfg.GitHub != nil {
		return cfg.GitHub.Branch
	}
	return config.DefaultBranch
}

// owner names a journal on GitHub, for what waits to be sent there.
func (h branchHome) owner() string { return h.Branch.String() + " at " + h.hub.Server() }
