package cli

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/journal"
)

func (a *app) auditCommand() *cobra.Command {
	audit := &cobra.Command{Use: "audit", Short: "Verify the record", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var f auditFlags
	verify := &cobra.Command{
		Use: "verify", Short: "Verify the journal's chain, and on GitHub its mirrors, and name what is wrong", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verify(cmd.Context(), f) },
	}
	verify.Flags().StringVar(&f.file, "journal", "", "verify this `file`, without a configuration")
	verify.Flags().BoolVar(&f.repair, "repair", false, "on GitHub: show again, first, what the mirrors lack")
	verify.Flags().BoolVar(&f.report, "report", false, "on GitHub: keep an issue about what is found")
	audit.AddCommand(verify, a.exportCommand())
	return audit
}

// verify reads the whole chain. It needs no engine, no backend and no secret.
func (a *app) verify(ctx context.Context, f auditFlags) error {
	path := f.file
	if path == "" {
		cfg, err := a.config()
		if err != nil {
			return err
		}
		if cfg.JournalGitHub {
			return a.verifyGitHub(ctx, cfg, f)
		}
		if path, err = a.journalPath(cfg); err != nil {
			return err
		}
	}
	if f.repair || f.report {
		return usagef("leave it out", "--repair and --report are for a journal on GitHub")
	}
	home, err := journal.Open(path, journal.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("nothing was ever rotated with this journal, or it stands elsewhere", "there is no journal %s", path)
	}
	var found journal.Audit
	if err == nil {
		found, err = home.Audit(ctx)
	}
	if fault, ok := errors.AsType[*journal.Fault](err); ok && a.output == "json" {
		a.json(map[string]any{"ok": false, "journal": path, "kind": fault.Kind, "seq": fault.Seq, "line": fault.Line, "detail": fault.Detail})
		a.complain(err)
		return exitStatus(exitTampered)
	}
	if err != nil {
		return err
	}
	if a.output == "json" {
		doc := map[string]any{"ok": true, "journal": path, "entries": found.Entries, "head": found.Head.Hash}
		if found.Unfinished != "" {
			doc["unfinished"] = found.Unfinished
		}
		a.json(doc)
		return nil
	}
	a.printf("%s: %d entries, the chain is whole, head %s\n", filepath.Clean(path), found.Entries, found.Head)
	if found.Unfinished != "" {
		a.printf("  %s; a run was killed in its append, and the next one sets that aside\n", found.Unfinished)
	}
	return nil
}
