package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status [CREDENTIAL…]", Short: "Say where every credential stands, from the journal alone",
		RunE: func(cmd *cobra.Command, names []string) error { return a.status(cmd.Context(), names) },
	}
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
	Stray    bool              `json:"not_in_configuration,omitempty"`
	File     *sheet            `json:"stack_file,omitempty"` // if it says something else than services read
}

// status needs the configuration, the journal and the stack files, and nothing
// else: no server, no secret, no certificate.
func (a *app) status(ctx context.Context, names []string) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	ledger, note, err := a.look(ctx, cfg)
	if err != nil {
		return err
	}
	lost := strays(cfg, ledger)
	if len(names) == 0 {
		names = append(namesOf(cfg), lost...)
	}
	var all []standing
	var used []deployed
	for _, name := range names {
		i := slices.IndexFunc(cfg.Credentials, func(c config.Credential) bool { return c.Name == name })
		if i < 0 && !slices.Contains(lost, name) {
			return usagef(credentials(cfg), "no credential is called %q", name)
		}
		c := ledger.Credential(name)
		s := a.standing(c)
		if s.Stray = i < 0; !s.Stray && !c.LastSuccess.IsZero() {
			s.Due = dueAt(cfg.Credentials[i], c)
		}
		if v, ok := c.In(rotation.Current); ok && !s.Stray {
			used = append(used, deployed{cfg.Credentials[i], v, c.Versions})
			if own := sheets(used[len(used)-1:]); len(own) == 1 && !own[0].right() {
				s.File = &own[0]
			}
		}
		all = append(all, s)
	}
	if note != "" {
		a.notef("%s", note)
	}
	if a.output == "json" {
		a.json(all)
		return nil
	}
	for _, s := range all {
		a.printStanding(s)
	}
	files := sheets(used)
	for i := range files {
		files[i].Notes = nil // of the next rotation: the plan says them
	}
	printSheets(a.Stdout, "a deploy of it would make services read something else; it must say", files)
	return nil
}

func (a *app) standing(c rotation.Credential) standing {
	s := standing{Position: rotation.PositionOf(c), Parked: c.Queue}
	if c.Open != nil {
		s.Rotation, s.At, s.Next = c.Open.ID, string(c.Open.Phase), rotation.NextPhase(c)
		if !c.Open.Complete {
			s.At += ", not complete"
		}
	}
	if !c.LastSuccess.IsZero() {
		s.Age = int64(a.Now().Sub(c.LastSuccess).Seconds())
	}
	if c.Holder.Epoch > 0 && !c.Released && a.Now().Before(c.Holder.Deadline) {
		s.Held = c.Holder.Run
	}
	return s
}

func (a *app) printStanding(s standing) {
	a.printf("%s\n", positionWords(s.Position))
	if s.Stray {
		a.printf("  it is not in the configuration: nothing is done for it\n")
	}
	if s.Rotation != "" {
		a.printf("  rotation %s stands at %s; next: %s\n", s.Rotation, s.At, nextCommand(s.Next, s.Name))
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
