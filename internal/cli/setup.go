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
	var dry, takeOver bool
	adopt := &cobra.Command{
		Use: "adopt CREDENTIAL…", Short: "Take over what services use now as version 1; restarts nothing",
		RunE: func(cmd *cobra.Command, names []string) error { return a.adopt(cmd.Context(), names, dry, takeOver) },
	}
	adopt.Flags().BoolVar(&dry, "dry-run", false, "look, and record nothing")
	adopt.Flags().BoolVar(&takeOver, "take-over", false, "take the lease from a run that is known to be dead")
	return []*cobra.Command{setup, adopt}
}

func (a *app) setupPostgres(names []string) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	printed := 0
	for _, c := range cfg.Credentials {
		s, ok := c.Settings.(postgres.Settings)
		if !ok || len(names) > 0 && !slices.Contains(names, c.Name) {
			continue
		}
		printed++
		sql := postgres.Setup(s, postgres.SetupInfo{Credential: c.Name})
		if a.output == "json" {
			if err := a.json(map[string]string{"credential": c.Name, "sql": sql}); err != nil {
				return err
			}
			continue
		}
		a.printf("%s", sql)
	}
	if printed == 0 {
		return usagef("credentials: "+strings.Join(namesOf(cfg), ", "), "no such credential has the backend postgres")
	}
	return nil
}

// adopt takes over the named credentials, one after the other.
func (a *app) adopt(ctx context.Context, names []string, dry, takeOver bool) error {
	w, err := a.wire(ctx, phaseFlags{})
	if err != nil {
		return err
	}
	defer w.close()
	if len(names) == 0 {
		return usagef("credentials: "+strings.Join(w.names(), ", "), "name the credentials to adopt")
	}
	for _, name := range names {
		if w.procs[name] == nil {
			return usagef("credentials: "+strings.Join(w.names(), ", "), "no credential is called %q", name)
		}
		if err := a.adoptOne(ctx, w, name, dry, takeOver); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) adoptOne(ctx context.Context, w *wiring, name string, dry, takeOver bool) error {
	look := func(ctx context.Context) (rotation.Adoption, error) {
		v, err := w.adopters[name].Adopt(ctx, name)
		if err != nil {
			return rotation.Adoption{}, err
		}
		return w.procs[name].Adopt(ctx, v)
	}
	var found rotation.Version
	if dry {
		ledger, err := w.ledger(ctx)
		if err != nil {
			return err
		}
		if c := ledger.Credential(name); c.Burnt > 0 {
			return rotation.Errorf(rotation.Refused, "see: keyturn status "+name, "%q was adopted already", name)
		}
		adoption, err := look(ctx)
		if err != nil {
			return fmt.Errorf("adopting %q: %w", name, err)
		}
		found = adoption.Version
	} else {
		c, err := w.engine.Adopt(ctx, name, rotation.Options{TakeOver: takeOver}, look)
		if err != nil {
			return err
		}
		found, _ = c.In(rotation.Current)
	}
	if a.output == "json" {
		return a.json(found)
	}
	verb := "adopted"
	if dry {
		verb = "would adopt"
	}
	a.printf("%s %s as version 1: login %s\n", verb, name, found.Identity)
	for _, field := range sortedKeys(found.Objects) {
		a.printf("  %s: %s\n", field, found.Objects[field].Name)
	}
	a.printf("  it works, nothing was restarted; next: keyturn plan %s\n", name)
	return nil
}
