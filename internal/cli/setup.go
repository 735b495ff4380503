package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/backend/postgres"
	"github.com/keyturn/keyturn/internal/rotation"
)

func (a *app) setupCommands() []*cobra.Command {
	setup := &cobra.Command{Use: "setup", Short: "Print what a system needs before its first rotation", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	setup.AddCommand(&cobra.Command{
		Use: "postgres [CREDENTIAL…]", Short: "Print the SQL that a superuser reviews and runs once",
		RunE: func(_ *cobra.Command, names []string) error { return a.setupPostgres(names) },
	})
	setup.AddCommand(a.setupGitHubCommand())
	var dry, takeOver bool
	adopt := &cobra.Command{
		Use: "adopt CREDENTIAL…", Short: "Take over what services use now as version 1; restarts nothing",
		RunE: func(cmd *cobra.Command, names []string) error { return a.adopt(cmd.Context(), names, dry, takeOver) },
	}
	adopt.Flags().BoolVar(&dry, "dry-run", false, "look, and record nothing")
	takeOverFlag(adopt, &takeOver)
	return []*cobra.Command{setup, adopt}
}

func (a *app) setupPostgres(names []string) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	has := map[string]postgres.Settings{}
	for _, c := range cfg.Credentials {
		if s, ok := c.Settings.(postgres.Settings); ok {
			has[c.Name] = s
		}
	}
	for _, name := range names {
		if _, ok := has[name]; !ok {
			return usagef("credentials: "+strings.Join(sortedKeys(has), ", "), "no credential of the backend postgres is called %q", name)
		}
	}
	type script struct {
		Credential string `json:"credential"`
		SQL        string `json:"sql"`
	}
	scripts := []script{}
	for _, c := range cfg.Credentials {
		if s, ok := has[c.Name]; ok && (len(names) == 0 || slices.Contains(names, c.Name)) {
			scripts = append(scripts, script{c.Name, postgres.Setup(s, postgres.SetupInfo{Credential: c.Name})})
		}
	}
	if len(scripts) == 0 {
		return usagef("give one a section postgres:", "no credential has the backend postgres")
	}
	if a.output == "json" {
		a.json(scripts)
		return nil
	}
	for _, s := range scripts {
		a.printf("%s", s.SQL)
	}
	return nil
}

// adopt takes over the named credentials, one after the other.
func (a *app) adopt(ctx context.Context, names []string, dry, takeOver bool) error {
	w, err := a.wire(ctx, phaseFlags{}, dry)
	if err != nil {
		return err
	}
	defer w.close()
	if len(names) == 0 {
		return usagef(credentials(w.cfg), "name the credentials to adopt")
	}
	if err := w.known(names); err != nil {
		return err
	}
	for _, name := range names {
		found, err := w.adopt(ctx, name, dry, takeOver)
		if err != nil {
			return err
		}
		a.printAdopted(name, rotation.NounOf(w.procs[name].Backend), found, dry)
	}
	return nil
}

// adopt takes over one credential, or looks whether it could.
func (w *wiring) adopt(ctx context.Context, name string, dry, takeOver bool) (rotation.Version, error) {
	look := func(ctx context.Context) (rotation.Adoption, error) {
		v, err := w.adopters[name].Adopt(ctx, name)
		if err != nil {
			return rotation.Adoption{}, err
		}
		return w.procs[name].Adopt(ctx, v)
	}
	if !dry {
		c, err := w.engine.Adopt(ctx, name, rotation.Options{TakeOver: takeOver}, look)
		w.app.send(ctx, w)
		found, _ := c.In(rotation.Current)
		return found, err
	}
	ledger, err := w.ledger(ctx)
	if err != nil {
		return rotation.Version{}, err
	}
	if c := ledger.Credential(name); c.Burnt > 0 {
		return rotation.Version{}, rotation.Errorf(rotation.Refused, "see: keyturn status "+name, "%q was adopted already", name)
	}
	adoption, err := look(ctx)
	if err != nil {
		return rotation.Version{}, fmt.Errorf("adopting %q: %w", name, err)
	}
	return adoption.Version, nil
}

func (a *app) printAdopted(name, noun string, found rotation.Version, dry bool) {
	a.adopted = append(a.adopted, found)
	if a.output == "json" {
		return
	}
	verb, end := "adopted", "it works, nothing was restarted; next: keyturn plan"
	if dry {
		verb, end = "would adopt", "it works, and nothing was recorded; next: keyturn adopt"
	}
	a.printf("%s %s as version 1: %s %s\n", verb, name, noun, found.Identity)
	for _, field := range sortedKeys(found.Objects) {
		a.printf("  %s: %s\n", field, found.Objects[field].Name)
	}
	a.printf("  %s %s\n", end, name)
}
