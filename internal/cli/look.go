package cli

import (
	"context"
	"fmt"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
)

func (a *app) lookCommands() []*cobra.Command {
	var due bool
	plan := &cobra.Command{
		Use: "plan [CREDENTIAL…]", Short: "Say what the next rotation will do; changes nothing",
		RunE: func(cmd *cobra.Command, names []string) error { return a.plan(cmd.Context(), names, due) },
	}
	plan.Flags().BoolVar(&due, "due", false, "only credentials that are due")
	status := &cobra.Command{
		Use: "status [CREDENTIAL…]", Short: "Say where every credential stands, from the journal alone",
		RunE: func(cmd *cobra.Command, names []string) error { return a.status(cmd.Context(), names) },
	}
	return []*cobra.Command{plan, status}
}

// plan prints what would be done. Something in the way of it is part of the
// plan, and the exit code says so.
func (a *app) plan(ctx context.Context, names []string, due bool) error {
	w, err := a.wire(ctx, phaseFlags{})
	if err != nil {
		return err
	}
	defer w.close()
	if len(names) == 0 && !due {
		names = w.names()
	}
	groups, err := w.groups(ctx, names, due, rotation.Prepare)
	if err != nil {
		return err
	}
	plans := []rotation.Plan{}
	for _, group := range groups {
		for _, name := range group {
			p, err := w.engine.Plan(ctx, w.procs[name])
			if err != nil {
				return err
			}
			plans = append(plans, p)
		}
	}
	blocked := false
	for _, p := range plans {
		blocked = blocked || len(p.Blocked) > 0
	}
	if a.output == "json" {
		if err := a.json(plans); err != nil {
			return err
		}
	} else if len(plans) == 0 {
		a.printf("nothing is due\n")
	} else {
		for _, p := range plans {
			a.printPlan(p)
		}
	}
	if blocked {
		return exitStatus(exitRefused)
	}
	return nil
}

func (a *app) printPlan(p rotation.Plan) {
	from := fmt.Sprint(p.From)
	if p.From == 0 {
		from = "none"
	}
	a.printf("%s %s → %d", p.Credential, from, p.To)
	if p.Becomes != "" {
		a.printf("   login %s → %s", or(p.Was, "none"), p.Becomes)
	}
	a.printf("   overlap %s, the old one ends %s\n", config.FormatDuration(p.Overlap), clock(p.Ends))
	if p.Stands != "" {
		a.printf("  a rotation is open at %s; next: keyturn %s %s\n", p.Stands, p.Next, p.Credential)
	}
	tw := tabwriter.NewWriter(a.Stdout, 0, 8, 3, ' ', 0)
	what := "secret"
	if len(p.Services) == 0 {
		what = "files"
	}
	fmt.Fprintf(tw, "  prepare\t+ %s %s · arm %s\t%s\n", what, listed(p.Creates), or(p.Becomes, "a login"), restarts(p, p.Mounts == rotation.Dual))
	for _, s := range p.Services {
		fmt.Fprintf(tw, "  cutover\t%s %d tasks, %s, %s, about %s\t\n", s.Service, s.Tasks, s.Order, atOnce(s.Parallelism), s.About.Round(time.Second))
	}
	if len(p.Services) == 0 {
		fmt.Fprintf(tw, "  cutover\tone atomic move\trestarts nothing\n")
	}
	if p.From != 0 {
		fmt.Fprintf(tw, "  cleanup\tend login %s, its sessions · remove %s\trestarts nothing\n", p.Was, listed(p.Removes))
	}
	_ = tw.Flush() // a failing stdout shows at the next print
	switch {
	case len(p.Reads) > 0 && len(p.Services) == 0:
		a.printf("  the application must read %s again when they change, or be restarted\n", strings.Join(p.Reads, ", "))
	case len(p.Reads) > 0 && p.Mounts == rotation.Switch:
		a.printf("  the application must read %s at start\n", strings.Join(p.Reads, ", "))
	}
	if p.Mounts == rotation.Dual {
		a.printf("  the application must fall back to the …_NEW credential by itself\n")
	}
	for _, warning := range p.Warnings {
		a.printf("  warning: %s\n", warning)
	}
	for _, b := range p.Blocked {
		a.printf("  refused now: %s\n", b)
	}
	a.printf("  plan %s\n", p.Hash)
}

// listed returns names in a line, those in one directory by what they share.
func listed(names []string) string {
	if len(names) < 2 || path.Dir(names[0]) == "." {
		return strings.Join(names, ", ")
	}
	dir := path.Dir(names[0])
	var files []string
	for _, n := range names {
		if path.Dir(n) != dir {
			return strings.Join(names, ", ")
		}
		files = append(files, path.Base(n))
	}
	return fmt.Sprintf("%s/{%s}", dir, strings.Join(files, ","))
}

func restarts(p rotation.Plan, dual bool) string {
	if !dual {
		return "restarts nothing"
	}
	return fmt.Sprintf("one rolling update of %d services; so is its way back", len(p.Services))
}

func atOnce(parallelism uint64) string {
	switch parallelism {
	case 0:
		return "all at once"
	case 1:
		return "one at a time"
	}
	return fmt.Sprintf("%d at a time", parallelism)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// standing is one credential in the output of status.
type standing struct {
	rotation.Position
	Rotation string            `json:"rotation,omitempty"`
	At       string            `json:"at,omitempty"`
	Next     rotation.Phase    `json:"next,omitempty"`
	Due      time.Time         `json:"due,omitzero"`
	Age      int64             `json:"age_seconds,omitempty"`
	Held     string            `json:"held_by,omitempty"`
	Parked   []rotation.Parked `json:"parked,omitempty"`
}

func (a *app) status(ctx context.Context, names []string) error {
	w, err := a.wire(ctx, phaseFlags{})
	if err != nil {
		return err
	}
	defer w.close()
	ledger, err := w.ledger(ctx)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = w.names()
	}
	var all []standing
	for _, name := range names {
		if _, ok := w.procs[name]; !ok {
			return usagef("credentials: "+strings.Join(w.names(), ", "), "no credential is called %q", name)
		}
		all = append(all, a.standing(ledger.Credential(name), w.procs[name].Policy))
	}
	if a.output == "json" {
		return a.json(all)
	}
	for _, s := range all {
		a.printStanding(s)
	}
	return nil
}

func (a *app) standing(c rotation.Credential, policy rotation.Policy) standing {
	s := standing{Position: rotation.PositionOf(c), Parked: c.Queue}
	if c.Open != nil {
		s.Rotation, s.At, s.Next = c.Open.ID, string(c.Open.Phase), rotation.NextPhase(c)
		if !c.Open.Complete {
			s.At += ", not complete"
		}
	}
	if !c.LastSuccess.IsZero() {
		s.Due = c.LastSuccess.Add(policy.Every)
		s.Age = int64(a.Now().Sub(c.LastSuccess).Seconds())
	}
	if c.Holder.Epoch > 0 && !c.Released && a.Now().Before(c.Holder.Deadline) {
		s.Held = c.Holder.Run
	}
	return s
}

func (a *app) printStanding(s standing) {
	a.printf("%s\n", positionWords(s.Position))
	if s.Rotation != "" {
		a.printf("  rotation %s stands at %s; next: keyturn %s %s\n", s.Rotation, s.At, s.Next, s.Name)
	}
	if !s.Due.IsZero() {
		a.printf("  due %s\n", clock(s.Due))
	}
	if s.Held != "" {
		a.printf("  held by run %s\n", s.Held)
	}
	for _, p := range s.Parked {
		a.printf("  retirement queue: %s of v%d since %s, tried %d times: %s\n", p.Step, p.Version, clock(p.Since), p.Tries+1, p.Why)
	}
}
