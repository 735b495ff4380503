package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/journal/branch"
	"github.com/keyturn/keyturn/internal/mirror"
	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/rotation"
)

// auditFlags are what audit verify can be told.
type auditFlags struct {
	file   string
	repair bool
	report bool
}

// verdict is what a check of the record on GitHub came to.
type verdict struct {
	OK       bool             `json:"ok"`
	Journal  string           `json:"journal"`
	Commit   string           `json:"commit"`
	Entries  int              `json:"entries"`
	Head     string           `json:"head"`
	Late     int              `json:"sent_late"` // entries that reached GitHub later than they should
	Delay    int64            `json:"longest_delay_seconds,omitempty"`
	Issue    string           `json:"issue,omitempty"`
	Findings []mirror.Finding `json:"findings"`
}

// verifyGitHub verifies the journal's chain on GitHub, and holds its mirrors against it.
func (a *app) verifyGitHub(ctx context.Context, cfg *config.Config, f auditFlags) error {
	may := mayAudit
	if f.repair || f.report {
		may = mayWork
	}
	client, err := a.asking(cfg, may)
	if err != nil {
		return err
	}
	b := journalBranch(client, cfg)
	place := mirrored(client)
	v := verdict{Journal: b.String(), Findings: []mirror.Finding{}}
	entries, err := a.chain(ctx, b, &v)
	if err != nil {
		return err
	}
	if len(v.Findings) == 0 {
		if f.repair {
			if err := repair(ctx, place, entries); err != nil {
				return err
			}
		}
		found, err := mirror.Comparison{Repository: place, Entries: entries, Branch: branchName(cfg), Authors: authors(cfg), Now: a.Now()}.Compare(ctx)
		if err != nil {
			return fmt.Errorf("comparing the record with what mirrors it: %w", err)
		}
		v.Findings = append(v.Findings, found...)
	}
	v.OK = len(v.Findings) == 0
	if f.report {
		if v.Issue, err = place.Comply(ctx, v.Findings, v.summary(), a.Now()); err != nil {
			return err
		}
	}
	if !v.OK {
		var lines []string
		for _, f := range v.Findings {
			lines = append(lines, fmt.Sprintf("%s %s: %s", f.Kind, f.Where, f.Detail))
		}
		a.raise(notify.Audit, "record", "the record is not intact", strings.Join(lines, "\n"))
		a.deliver(nil)
	}
	return a.concludeAudit(v)
}

// chain reads and verifies the journal. What is wrong with it is a finding.
func (a *app) chain(ctx context.Context, b *branch.Branch, v *verdict) ([]journal.Entry, error) {
	var entries []journal.Entry
	var text []byte
	commit, err := b.Tip(ctx)
	if err == nil {
		text, err = b.Text(ctx, commit)
	}
	if err == nil {
		entries, err = journal.Decode(bytes.NewReader(text))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &usageError{err: fmt.Errorf("there is no journal on %v: %w", b, err), hint: hintOf(err)}
	}
	fault, broken := errors.AsType[*journal.Fault](err)
	if err != nil && !broken {
		return nil, fmt.Errorf("reading the journal on %v: %w", b, err)
	}
	if !broken && len(entries) == 0 {
		fault = &journal.Fault{Seq: 1, Line: 1, Kind: journal.Truncated, Detail: "not even the first entry is there, with which every journal begins"}
	}
	if fault != nil {
		v.Findings = append(v.Findings, mirror.Finding{Kind: fault.Kind, Seq: fault.Seq, Where: b.String(), Detail: fault.Detail})
	}
	v.Entries, v.Commit = len(entries), commit
	if n := len(entries); n > 0 {
		v.Head = entries[n-1].Hash
	}
	v.Late, v.Delay = late(entries)
	return entries, nil
}

// late returns how many entries were sent late, and the longest delay in seconds.
func late(entries []journal.Entry) (count int, longest int64) {
	for _, e := range entries {
		n, oldest, ok := journal.Late(e)
		if ok {
			count += n
			longest = max(longest, int64(e.Time.Sub(oldest)/time.Second))
		}
	}
	return count, longest
}

// repair shows again what the mirrors lack.
func repair(ctx context.Context, place mirror.Repository, entries []journal.Entry) error {
	records := placed(entries, 0)
	ledger, err := rotation.Replay(records)
	if err != nil {
		return err
	}
	ids, credentials := rotationsOf(records)
	for _, id := range ids {
		r := mirror.Report{Rotation: id, Credentials: credentials[id], Title: "Rotation of " + strings.Join(credentials[id], ", "), Closed: closed(ledger, id, credentials[id]),
			Text: "Shown again from the record by `keyturn audit verify --repair`."}
		if err := show(ctx, place, entries, r); err != nil {
			return fmt.Errorf("showing rotation %s again: %w", id, err)
		}
	}
	return nil
}

func (v verdict) summary() string {
	text := fmt.Sprintf("%s: %d entries, head %.12s", v.Journal, v.Entries, v.Head)
	if v.Late > 0 {
		text += fmt.Sprintf("; %s late, by %s at most", counted(v.Late, "record"), time.Duration(v.Delay)*time.Second)
	}
	return text
}

// concludeAudit says what was found; something found is exit 5.
func (a *app) concludeAudit(v verdict) error {
	if a.output == "json" {
		a.json(v)
	} else {
		a.printVerdict(v)
	}
	if v.OK {
		return nil
	}
	if a.step != nil {
		a.say(fmt.Sprintf("the record is not intact: %s", counted(len(v.Findings), "finding")), "see the log of this step; docs/journal.md says what each kind means")
	}
	return exitStatus(exitTampered)
}

func (a *app) printVerdict(v verdict) {
	word := "the chain is whole, and the mirrors agree"
	if !v.OK {
		word = counted(len(v.Findings), "finding")
	}
	a.printf("%s: %s\n", v.summary(), word)
	if len(v.Findings) > 0 {
		w := tabwriter.NewWriter(a.Stdout, 0, 4, 2, ' ', 0)
		for _, f := range v.Findings {
			seq := ""
			if f.Seq > 0 {
				seq = fmt.Sprintf("entry %d", f.Seq)
			}
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", f.Kind, seq, f.Where, f.Detail)
		}
		_ = w.Flush() // a.Stdout keeps its error
	}
	if v.Issue != "" {
		a.printf("  %s\n", v.Issue)
	}
}

func authors(cfg *config.Config) []string {
	if cfg.GitHub != nil {
		return cfg.GitHub.Authors
	}
	return nil
}

// mayAudit is what reading the record and its mirrors needs.
var mayAudit = github.InstallationPermissions{Contents: github.String("read"), Issues: github.String("read"), Statuses: github.String("read")}
