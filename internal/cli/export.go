package cli

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io/fs"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/journal"
)

func (a *app) exportCommand() *cobra.Command {
	var format, file string
	export := &cobra.Command{
		Use: "export", Short: "Print the record: as it is, or as a table", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.export(cmd.Context(), format, file) },
	}
	export.Flags().StringVar(&format, "format", "jsonl", "jsonl, which can be verified, or csv")
	export.Flags().StringVar(&file, "journal", "", "export this `file`, without a configuration")
	return export
}

// export prints every entry of a record that is whole.
func (a *app) export(ctx context.Context, format, file string) error {
	if format != "jsonl" && format != "csv" {
		return usagef("write jsonl or csv", "--format: %q is no format", format)
	}
	if a.output == "json" {
		return usagef("leave --output out: --format says how the entries are written", "an export is no document")
	}
	entries, err := a.record(ctx, file)
	if err != nil {
		return err
	}
	if format == "csv" {
		return a.exportCSV(entries)
	}
	for _, e := range entries {
		line, err := journal.Line(e)
		if err != nil {
			return err
		}
		a.printf("%s\n", line)
	}
	return nil
}

// record reads the whole journal, verified.
func (a *app) record(ctx context.Context, file string) ([]journal.Entry, error) {
	if file != "" {
		home, err := journal.Open(file, journal.Options{})
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usagef("nothing was ever rotated with this journal, or it stands elsewhere", "there is no journal %s", file)
		}
		if err != nil {
			return nil, err
		}
		return home.Read(ctx)
	}
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	home, note, err := a.open(ctx, cfg, true)
	if err != nil {
		return nil, err
	}
	if home == nil {
		return nil, usagef("see: keyturn doctor", "%s", note)
	}
	return read(ctx, home)
}

// exportColumns are the columns of the table, in their order.
var exportColumns = []string{"seq", "time", "rotation", "credential", "version", "identity", "phase", "step", "status", "actor", "verified",
	"run", "attempt", "url", "commit", "plan", "evidence", "nonce", "prev", "hash"}

// exportCSV prints a table (RFC 4180). Evidence is JSON in one cell.
func (a *app) exportCSV(entries []journal.Entry) error {
	w := csv.NewWriter(a.Stdout)
	w.UseCRLF = true
	_ = w.Write(exportColumns) // a.Stdout keeps its error
	for _, e := range entries {
		evidence := ""
		if len(e.Evidence) > 0 {
			b, err := json.Marshal(e.Evidence)
			if err != nil {
				return err
			}
			evidence = string(b)
		}
		_ = w.Write([]string{strconv.FormatInt(e.Seq, 10), e.Time.UTC().Format(time.RFC3339Nano), cellText(e.Rotation), cellText(e.Credential),
			strconv.Itoa(e.Version), cellText(e.Identity), e.Phase, cellText(e.Step), e.Status, cellText(e.Actor.Name), strconv.FormatBool(e.Actor.Verified),
			cellText(e.Run.ID), strconv.Itoa(e.Run.Attempt), cellText(e.Run.URL), e.Commit, e.Plan, evidence, e.Nonce, e.Prev, e.Hash})
	}
	w.Flush()
	return w.Error()
}

// cellText keeps a spreadsheet from taking a text for a formula.
func cellText(s string) string {
	if s != "" && (s[0] == '=' || s[0] == '+' || s[0] == '-' || s[0] == '@' || s[0] == '\t' || s[0] == '\r') {
		return "'" + s
	}
	return s
}
