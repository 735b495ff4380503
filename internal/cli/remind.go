package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/mirror"
	"github.com/keyturn/keyturn/internal/rotation"
)

// remindEarly is how long before its day people are reminded.
const remindEarly = 14 * 24 * time.Hour

// mayRemind is what keeping issues needs.
var mayRemind = github.InstallationPermissions{Issues: github.String("write")}

// reminded is what is known of something that only people can renew.
type reminded struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Made    string `json:"made"`
	Due     string `json:"due"`
	Days    int    `json:"days"`  // until then; less than 0: it is overdue
	State   string `json:"state"` // "fine", "soon" or "overdue"
	Issue   string `json:"issue,omitempty"`
	Runbook string `json:"runbook,omitempty"` // Markdown, of what is not fine
}

func (a *app) remindCommand() *cobra.Command {
	var report bool
	cmd := &cobra.Command{
		Use: "remind", Short: "Say what only people can renew and when, with a runbook; what is due is no failure", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.remind(cmd.Context(), report) },
	}
	cmd.Flags().BoolVar(&report, "report", false, "keep an issue on GitHub for each that is due")
	return cmd
}

func (a *app) remind(ctx context.Context, report bool) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	all := a.reminders(cfg)
	if report {
		client, err := a.asking(cfg, mayRemind)
		if err != nil {
			return err
		}
		var due []mirror.Reminder
		for _, r := range all {
			due = append(due, mirror.Reminder{Name: r.Name, Title: "Renew by hand: " + r.Name, Text: r.text(), Due: r.State != "fine"})
		}
		urls, err := mirrored(client).Remind(ctx, due)
		if err != nil {
			return err
		}
		for i := range all {
			all[i].Issue = urls[all[i].Name]
		}
	}
	if a.output == "json" {
		a.json(all)
		return nil
	}
	a.printReminded(all)
	return nil
}

// reminders judges every reminder by its age.
func (a *app) reminders(cfg *config.Config) []reminded {
	all := []reminded{}
	for _, r := range cfg.Reminders {
		due := r.Made.Add(r.Every)
		left := due.Sub(a.Now())
		m := reminded{Name: r.Name, Kind: r.Kind, Made: day(r.Made), Due: day(due), Days: int(left / (24 * time.Hour)), State: "fine"}
		switch {
		case left <= 0:
			m.State = "overdue"
		case left <= remindEarly:
			m.State = "soon"
		}
		if m.State != "fine" {
			m.Runbook = a.runbook(cfg, r)
		}
		all = append(all, m)
	}
	return all
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// kindWords are the kinds for people.
var kindWords = map[string]string{config.AppKey: "private key of a GitHub App", config.PersonalToken: "personal access token", config.OtherKind: "credential"}

// when says when something is due.
func (m reminded) when() string {
	switch {
	case m.State == "overdue":
		return fmt.Sprintf("was due %s, %s ago", m.Due, counted(-m.Days, "day"))
	case m.State == "soon":
		return fmt.Sprintf("due %s, in %s", m.Due, counted(m.Days, "day"))
	}
	return "due " + m.Due
}

// text is the body of the issue. It says no more than changes when somebody acts, so
// that nobody is told of it every day.
func (m reminded) text() string {
	return fmt.Sprintf("`%s`, a %s, was made %s and is due %s. There is no API to renew it by: a person does.\n\n%s", m.Name, kindWords[m.Kind], m.Made, m.Due, m.Runbook)
}

// runbook says step by step what is to be done.
func (a *app) runbook(cfg *config.Config, r config.Reminder) string {
	var steps []string
	switch r.Kind {
	case config.AppKey:
		steps = []string{
			"Open the App's page of settings (Developer settings, GitHub Apps), Private keys, Generate a private key. Both keys work from now on: nothing fails meanwhile.",
			"Put the new key where the old one is read" + a.placeOfKey(cfg) + ".",
			"See that it works: `keyturn doctor` asks GitHub with it, and `keyturn remind` shows its fingerprint" + a.printOfKey(cfg) + ".",
			"Delete the old key on the same page: until then it is valid.",
		}
	case config.PersonalToken:
		steps = []string{
			"Make a token with the same rights (settings, Developer settings, Personal access tokens), one that ends by itself. Both work from now on.",
			"Put the new one where the old one is read, and see that what uses it works.",
			"Delete the old one on the same page: until then it is valid.",
			"Could an App or `permissions:` of the workflow do its work? Then nobody needs to renew it.",
		}
	default:
		steps = []string{"Renew it as the note says.", "See that what uses it works.", "End the old one: until then it is valid."}
	}
	steps = append(steps, fmt.Sprintf("Write the day to the configuration: `reminders: {%s: {made: %s}}`. This issue is closed by the next run of `keyturn remind --report`.", r.Name, "…"))
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "%d. %s\n", i+1, s)
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "\n> %s\n", strings.ReplaceAll(plainText(r.Note), "\n", "\n> "))
	}
	return b.String()
}

// placeOfKey says where the key of the run's App is read.
func (a *app) placeOfKey(cfg *config.Config) string {
	if cfg.GitHub == nil || cfg.GitHub.App == nil {
		return " (a secret of the environment that Keyturn's jobs run in)"
	}
	return fmt.Sprintf(" (Keyturn's own: %s; in a workflow, a secret of the environment that its jobs run in)", cfg.GitHub.App.Key)
}

// printOfKey says which key is in use, as GitHub shows it, if this run has one.
func (a *app) printOfKey(cfg *config.Config) string {
	if h, err := a.onGitHub(cfg); err == nil {
		if print := h.KeyFingerprint(); print != "" {
			return fmt.Sprintf(" (that of the key in use now is `%s`)", print)
		}
	}
	return ""
}

func (a *app) printReminded(all []reminded) {
	if len(all) == 0 {
		a.nothing("there are no reminders")
		return
	}
	for _, m := range all {
		a.printf("%s: %s, made %s, %s\n", m.Name, kindWords[m.Kind], m.Made, m.when())
		for line := range strings.Lines(m.Runbook) {
			a.printf("  %s\n", strings.TrimRight(line, "\n"))
		}
		if m.Issue != "" {
			a.printf("  issue %s\n", m.Issue)
		}
	}
}

// aged examines what only people can renew.
func (e *examination) aged(context.Context) ([]rotation.Remark, error) {
	var found []rotation.Remark
	for _, m := range e.reminders(e.cfg) {
		level := rotation.Fine
		hint := ""
		if m.State != "fine" {
			level, hint = rotation.Warning, "what to do says: keyturn remind"
		}
		found = append(found, rotation.Remark{Level: level, Text: fmt.Sprintf("%s, made %s: %s", m.Name, m.Made, m.when()), Hint: hint})
	}
	return found, nil
}
