package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
)

// guardEvery is how often guard looks again.
const guardEvery = 5 * time.Second

func (a *app) guardCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "guard [STACK]", Short: "Say whether a deploy of the stack files may go on now: before docker stack deploy, in the team's own workflow",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error { return a.guard(cmd.Context(), names, wait) },
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait for a cutover that is under way or proposed")
	return cmd
}

// guard waits until a deploy of the stack files would change nothing that a
// rotation is about, and refuses one that would bring an old version back.
func (a *app) guard(ctx context.Context, names []string, wait time.Duration) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	if len(names) == 1 && !slices.Contains(stacksOf(cfg), names[0]) {
		return usagef("stacks: "+strings.Join(stacksOf(cfg), ", "), "no credential belongs to a stack %q", names[0])
	}
	told := ""
	for end := a.Now().Add(wait); ; {
		busy, err := a.guarded(ctx, cfg, names)
		if err != nil {
			return err
		}
		if busy == "" {
			a.printf("deploy: the stack files say what services read\n")
			return nil
		}
		if !a.Now().Before(end) {
			return rotation.Errorf(rotation.Refused, "wait for it: keyturn guard --wait 30m", "a deploy now would cut in: %s", busy)
		}
		if busy != told {
			fmt.Fprintf(a.Stderr, "  waiting: %s\n", busy)
			told = busy
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(guardEvery, max(wait/10, 100*time.Millisecond))):
		}
	}
}

func stacksOf(cfg *config.Config) []string {
	var out []string
	for _, c := range cfg.Credentials {
		if c.Stack != nil && !slices.Contains(out, c.Stack.Name) {
			out = append(out, c.Stack.Name)
		}
	}
	return out
}

// guarded says what a deploy has to wait for, "" if for nothing. A file that would
// bring an old version back is refused.
func (a *app) guarded(ctx context.Context, cfg *config.Config, names []string) (busy string, err error) {
	ledger, _, err := a.look(ctx, cfg)
	if err != nil {
		return "", err
	}
	for _, c := range cfg.Credentials {
		if c.Stack == nil || len(names) == 1 && c.Stack.Name != names[0] {
			continue
		}
		now := ledger.Credential(c.Name)
		if open := now.Open; open != nil && (open.Phase == rotation.Cutover || open.Phase == rotation.Rollback) && !open.Complete {
			return fmt.Sprintf("%s of %q is under way", open.Phase, c.Name), nil
		}
		current, ok := now.In(rotation.Current)
		if c.Stack.File == "" || !ok || says(c, current, now.Versions) {
			continue
		}
		if pending, ok := now.In(rotation.Pending); ok && says(c, pending, now.Versions) {
			return fmt.Sprintf("the stack file names version %d of %q, whose cutover is still to come", pending.Number, c.Name), nil
		}
		return "", rotation.Errorf(rotation.Refused, "deploy the file of the default branch; what it must say: keyturn status "+c.Name,
			"a deploy of %s would change what services read of %q, or bring an old version back", c.Stack.File, c.Name)
	}
	return "", nil
}

// says reports whether a credential's stack file says what services are to read of a version.
func says(c config.Credential, v rotation.Version, known []rotation.Version) bool {
	s := sheets([]deployed{{c, v, known}})
	return len(s) == 1 && s[0].right()
}
