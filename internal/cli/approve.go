package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/approval"
	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
)

// The steps of notes about approvals and proposals.
const (
	noteProposed = "proposed"
	noteGlass    = "break-glass"
	noteReviewed = "break-glass-reviewed"
)

// mayApprove is what reading approvals needs. Teams are the organisation's.
func mayApprove(p approval.Policy) github.InstallationPermissions {
	may := github.InstallationPermissions{Contents: github.String("read"), Actions: github.String("read"), PullRequests: github.String("read")}
	if approval.NamesTeam(p.By) {
		may.Members = github.String("read")
	}
	return may
}

// judged is the verdict on one credential's policy.
type judged struct {
	Credential string           `json:"credential"`
	Action     approval.Action  `json:"action"`
	Verdict    approval.Verdict `json:"verdict"`
	Plan       string           `json:"plan,omitempty"`
	Policy     string           `json:"policy,omitempty"` // hash of the configuration on the default branch
	Glass      *glass           `json:"break_glass,omitempty"`
}

// approved makes sure that people have approved what a phase does to production,
// and returns what is recorded of it; nil if nobody has to be asked.
func (w *wiring) approved(ctx context.Context, phase rotation.Phase, group []string, f phaseFlags) (any, error) {
	if !blank(f.revoking) {
		return nil, nil // see mayRevoke
	}
	if phase == rotation.Prepare {
		return nil, w.reviewedGlass(ctx, group)
	}
	policies := w.policies(phase, group)
	if len(policies) == 0 || f.resumed {
		return nil, nil
	}
	if unmoved, err := w.unmoved(ctx, phase, group); unmoved || err != nil {
		return nil, err
	}
	if begun, err := w.begunWith(ctx, phase, group); begun || err != nil {
		return nil, err
	}
	if !blank(f.glass) || !blank(f.ticket) {
		return w.breakGlass(ctx, phase, group, f)
	}
	all, err := w.judge(ctx, phase, group, f.plan)
	if err != nil {
		return nil, err
	}
	for _, j := range all {
		if !j.Verdict.Approved {
			return nil, rotation.Errorf(rotation.Refused, refusalHint(j), "%s of %q: %s", phase, j.Credential, j.Verdict)
		}
	}
	return all, nil
}

func refusalHint(j judged) string {
	hint := j.Verdict.Hint()
	switch {
	case j.Verdict.Has("outside"):
		return `run the workflow of the cutover; or, as an administrator: --break-glass "WHY" --ticket URL`
	case j.Verdict.Has("plan-not-shown"), j.Verdict.Has("plan-changed"):
		return "show it again (keyturn plan), have it approved, and hand its hash on with --plan"
	case j.Verdict.Has("pull-missing"):
		return "keyturn propose " + j.Credential
	case hint == "":
		return "see what is missing: keyturn approvals " + j.Credential
	}
	return hint
}

// policies are those of a batch's credentials for a phase, by name.
func (w *wiring) policies(phase rotation.Phase, group []string) map[string]*config.Approval {
	out := map[string]*config.Approval{}
	for _, name := range group {
		if rule := w.credential(name).Approve.Of(string(phase)); rule != nil {
			out[name] = rule
		}
	}
	return out
}

// unmoved reports whether a rollback gives up what no service uses: then nothing is
// restarted, and nobody has to be asked. Services that mount both versions are.
func (w *wiring) unmoved(ctx context.Context, phase rotation.Phase, group []string) (bool, error) {
	if phase != rotation.Rollback {
		return false, nil
	}
	ledger, err := w.ledger(ctx)
	if err != nil {
		return false, err
	}
	for _, name := range group {
		open := ledger.Credential(name).Open
		if open != nil && (w.credential(name).Mounts == "dual" || open.Phase != rotation.Prepare && open.Phase != rotation.Validate) {
			return false, nil
		}
	}
	return true, nil
}

// begunWith reports whether the phase was begun, with its approval, by a run that
// did not come to its end: then it is gone on with. So it is with one that is done.
func (w *wiring) begunWith(ctx context.Context, phase rotation.Phase, group []string) (bool, error) {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return false, err
	}
	for _, name := range group {
		open := ledger.Credential(name).Open
		if open == nil || phase == rotation.Cutover && open.Phase == rotation.Cleanup || open.Phase == phase {
			continue
		}
		return false, nil
	}
	return true, nil
}

// judge asks for the verdict on every policy of a batch.
func (w *wiring) judge(ctx context.Context, phase rotation.Phase, group []string, shown string) ([]judged, error) {
	now, err := w.planHash(ctx, group, phase)
	if err != nil {
		return nil, err
	}
	entries, err := w.entries(ctx)
	if err != nil {
		return nil, err
	}
	policies := w.policies(phase, group)
	var all []judged
	for _, name := range sortedKeys(policies) {
		p := policyOf(policies[name])
		s := approval.Subject{Policy: p, Facts: w.facts(phase, name, entries)}
		s.Facts.PlanShown, s.Facts.PlanNow = shown, now
		if shown == "" && p.PullRequest && s.Facts.Proposed != nil {
			s.Facts.PlanShown = s.Facts.Proposed.Plan // the pull request shows it
		}
		if s.Facts.InActions {
			if s.Facts, err = w.collect(ctx, s); err != nil {
				return nil, err
			}
		}
		all = append(all, judged{Credential: name, Action: s.Facts.Action, Verdict: approval.Decide(p, s.Facts), Plan: now, Policy: s.Facts.PolicyFrom})
	}
	return all, nil
}

func policyOf(a *config.Approval) approval.Policy {
	return approval.Policy{Count: a.People(), By: a.By, Environment: a.Environment, PullRequest: a.PullRequest, Workflows: a.Workflows,
		MaxAge: a.Age(), SelfReview: a.SelfReview}
}

// entries are those of the journal, without asking again where it was read just now.
func (w *wiring) entries(ctx context.Context) ([]journal.Entry, error) {
	if s, ok := w.journal.(*spooled); ok {
		return s.Entries(ctx)
	}
	if w.home == nil {
		return nil, nil
	}
	return w.home.Read(ctx)
}

// each hands over every entry of the journal, without asking again where it was read just
// now, and keeps none.
func (w *wiring) each(ctx context.Context, take func(journal.Entry)) error {
	if _, ok := w.journal.(*spooled); ok || w.home == nil {
		entries, err := w.entries(ctx)
		for _, e := range entries {
			take(e)
		}
		return err
	}
	return journal.Each(ctx, w.home, take)
}

// facts are those that the record has of a credential's rotation.
func (w *wiring) facts(phase rotation.Phase, name string, entries []journal.Entry) approval.Facts {
	f := approval.Facts{Action: approval.Cutover, InActions: w.app.Getenv("GITHUB_ACTIONS") == "true", Now: w.app.Now(), Earlier: -1}
	if phase == rotation.Rollback {
		f.Action = approval.Rollback
	}
	id := ""
	for _, e := range entries {
		if e.Credential == name && e.Rotation != "" {
			id = e.Rotation
		}
	}
	run := w.app.Getenv("GITHUB_RUN_ID") + "."
	for _, e := range entries {
		if e.Rotation == id && e.Actor.Name != "" && !slices.Contains(f.Actors, e.Actor.Name) {
			f.Actors = append(f.Actors, e.Actor.Name)
		}
		if e.Rotation == id && e.Credential == name && e.Step == noteProposed {
			f.Proposed = proposalOf(e)
		}
		if strings.HasPrefix(e.Run.ID, run) && e.Phase == string(phase) {
			f.Earlier = max(f.Earlier, approvalsIn(e))
		}
	}
	return f
}

// proposalOf is what a note says of a pull request.
func proposalOf(e journal.Entry) *approval.Proposal {
	var p approval.Proposal
	if json.Unmarshal(e.Evidence["pull"], &p.Number) != nil || json.Unmarshal(e.Evidence["head"], &p.Head) != nil {
		return nil
	}
	_ = json.Unmarshal(e.Evidence["plan"], &p.Plan) // without it, no plan was shown
	p.At = e.Time
	return &p
}

// approvalsIn is how many approvals of an environment an entry records; -1 if it records none.
func approvalsIn(e journal.Entry) int {
	var all []judged
	if json.Unmarshal(e.Evidence[rotation.KeyApproval], &all) != nil {
		return -1
	}
	n := 0
	for _, j := range all {
		for _, by := range j.Verdict.By {
			if by.How == "environment" {
				n++
			}
		}
	}
	return n
}

// collect reads what GitHub says now.
func (w *wiring) collect(ctx context.Context, s approval.Subject) (approval.Facts, error) {
	a := w.app
	client, err := a.asking(w.cfg, mayApprove(s.Policy))
	if err != nil {
		return s.Facts, err
	}
	s.RunID, _ = strconv.ParseInt(a.Getenv("GITHUB_RUN_ID"), 10, 64)
	s.HeadSHA = a.Getenv("GITHUB_SHA")
	s.ConfigPath = a.inRepository(a.configPath)
	if s.Config, err = os.ReadFile(a.configPath); err != nil {
		return s.Facts, err
	}
	return approval.Collect(ctx, client, s)
}

// inRepository is a path as the repository has it.
func (a *app) inRepository(path string) string {
	if root := a.Getenv("GITHUB_WORKSPACE"); root != "" {
		if full, err := filepath.Abs(path); err == nil {
			if rel, err := filepath.Rel(root, full); err == nil && filepath.IsLocal(rel) {
				return filepath.ToSlash(rel)
			}
		}
	}
	return filepath.ToSlash(filepath.Clean(path))
}

// remember records something about a credential's rotation that changes no state.
func (w *wiring) remember(ctx context.Context, name string, phase rotation.Phase, step string, evidence map[string]any) error {
	raw := map[string]json.RawMessage{}
	for k, v := range evidence {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		raw[k] = b
	}
	ledger, err := w.ledger(ctx)
	if err != nil {
		return err
	}
	r := rotation.Record{Time: w.app.Now().UTC().Truncate(time.Millisecond), Credential: name, Phase: phase, Step: step, Status: rotation.RecordNote, Evidence: raw}
	if open := ledger.Credential(name).Open; open != nil {
		r.Rotation, r.Version = open.ID, open.To
	}
	_, err = w.journal.Append(ctx, ledger.Last(), func([]rotation.Record) ([]rotation.Record, error) { return []rotation.Record{r}, nil })
	return err
}

func (a *app) approvalsCommand() *cobra.Command {
	var f phaseFlags
	var rollback, reviewed bool
	cmd := &cobra.Command{
		Use: "approvals CREDENTIAL…", Short: "Say who has approved a cutover, what is missing and who could give it",
		RunE: func(cmd *cobra.Command, names []string) error {
			phase := rotation.Cutover
			if rollback {
				phase = rotation.Rollback
			}
			if reviewed {
				return a.reviewGlass(cmd.Context(), names)
			}
			return a.approvals(cmd.Context(), names, f, phase)
		},
	}
	cmd.Flags().StringVar(&f.plan, "plan", "", "the `hash` of the plan that was shown")
	cmd.Flags().BoolVar(&rollback, "rollback", false, "of a rollback")
	cmd.Flags().BoolVar(&reviewed, "reviewed", false, "record that you have reviewed what somebody else did without approvals")
	return cmd
}

// approvals shows verdicts, and does nothing. What is not approved is exit 3.
func (a *app) approvals(ctx context.Context, names []string, f phaseFlags, phase rotation.Phase) error {
	w, err := a.wire(ctx, f, true)
	if err != nil {
		return err
	}
	defer w.close()
	groups, err := a.groups(ctx, w, names, false, phase)
	if err != nil {
		return err
	}
	all := []judged{}
	for _, group := range groups {
		found, err := w.judge(ctx, phase, group, f.plan)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	if a.output == "json" {
		a.json(all)
	} else {
		a.printJudged(all, names)
	}
	if slices.ContainsFunc(all, func(j judged) bool { return !j.Verdict.Approved }) {
		return exitStatus(exitRefused)
	}
	return nil
}

func (a *app) printJudged(all []judged, names []string) {
	if len(all) == 0 {
		a.printf("%s: no approval is asked for\n", strings.Join(names, ", "))
	}
	for _, j := range all {
		a.printf("%s %s: %s\n", j.Credential, j.Action, j.Verdict)
		for _, by := range j.Verdict.By {
			a.printf("  %s (%s)\n", by.Login, by.How)
		}
		if hint := j.Verdict.Hint(); hint != "" {
			a.printf("  %s\n", hint)
		}
	}
}
