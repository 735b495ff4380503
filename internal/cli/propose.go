package cli

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/mirror"
	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/proposal"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm/stackfile"
)

// proposalPrefix begins the branches of proposals.
const proposalPrefix = "keyturn/"

// mayPropose is what a proposal needs.
var mayPropose = github.InstallationPermissions{Contents: github.String("write"), PullRequests: github.String("write"),
	Issues: github.String("write"), Statuses: github.String("write")}

func (a *app) proposeCommand() *cobra.Command {
	var f phaseFlags
	cmd := &cobra.Command{
		Use: "propose CREDENTIAL…", Short: "Open the pull request by which people approve the cutover, or bring it up to date",
		RunE: func(cmd *cobra.Command, names []string) error { return a.propose(cmd.Context(), names, f) },
	}
	cmd.Flags().BoolVar(&f.due, "due", false, "every rotation that was validated; proposals of others are closed")
	return cmd
}

// propose opens a pull request for every rotation that waits for its cutover.
func (a *app) propose(ctx context.Context, names []string, f phaseFlags) error {
	w, err := a.wire(ctx, f, false)
	if err != nil {
		return err
	}
	defer w.close()
	client, err := a.asking(w.cfg, mayPropose)
	if err != nil {
		return err
	}
	if f.due {
		if err := w.discardProposals(ctx, client); err != nil {
			return err
		}
	}
	groups, err := a.groups(ctx, w, names, f.due, rotation.Cutover)
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		a.nothing("nothing waits for a cutover")
		return nil
	}
	defer a.send(ctx, w)
	return a.each(ctx, groups, func(group []string) error { return w.proposeGroup(ctx, client, group, f.due) })
}

// proposeGroup opens the pull request of one rotation.
func (w *wiring) proposeGroup(ctx context.Context, client *githubapp.Client, group []string, due bool) error {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return err
	}
	c := ledger.Credential(group[0])
	if rotation.NextPhase(c) != rotation.Cutover || c.Open == nil || c.Open.Phase != rotation.Validate {
		return rotation.Errorf(rotation.Refused, "next: keyturn "+string(rotation.NextPhase(c))+" "+group[0],
			"proposing the cutover of %s: it was not validated, or is under way", strings.Join(group, ", "))
	}
	base, err := proposal.Default(ctx, client)
	if err != nil {
		return err
	}
	files, diff, err := w.editedFiles(ctx, client, base, ledger, group, false)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		why := "no stack file is named, or it says already what services will read"
		if due {
			w.app.notef("%s: nothing to propose: %s", strings.Join(group, ", "), why)
			return nil
		}
		return rotation.Errorf(rotation.Refused, "name it in the configuration: stack: {name: …, file: …}; or approve in an environment",
			"proposing the cutover of %s: %s", strings.Join(group, ", "), why)
	}
	batch, err := w.standards(group)
	if err != nil {
		return err
	}
	plan, err := w.engine.Plan(ctx, anyPhase, batch...)
	if err != nil {
		return err
	}
	p := w.proposal(ledger, group, plan, files, diff)
	open, err := p.Put(ctx, client, base)
	if err != nil {
		return err
	}
	return w.proposed(ctx, client, group, plan, open)
}

// proposed records a proposal, and says so.
func (w *wiring) proposed(ctx context.Context, client *githubapp.Client, group []string, plan rotation.Plan, open proposal.Open) error {
	a := w.app
	if open.Unsent != "" {
		a.notef("the reviewers of #%d could not be asked: %s", open.Number, open.Unsent)
	}
	for _, name := range group {
		if open.Fresh {
			a.raise(notify.Approval, fmt.Sprintf("pull/%d", open.Number), fmt.Sprintf("the cutover of %s waits for reviewers", strings.Join(group, ", ")), open.URL)
			err := w.remember(ctx, name, rotation.Cutover, noteProposed, map[string]any{"pull": open.Number, "head": open.Head, "plan": plan.Hash, "url": open.URL})
			if err != nil {
				return err
			}
		}
		status := &github.RepoStatus{State: github.String("success"), Context: github.String(mirror.Context(name, string(rotation.Validate))),
			Description: github.String("validated; plan " + plan.Hash), TargetURL: github.String(open.URL)}
		if _, _, err := client.Repositories.CreateStatus(ctx, client.Owner, client.Repo, open.Head, status); err != nil {
			a.notef("no status could be set on #%d: %v", open.Number, err)
		}
	}
	if a.output == "json" {
		a.json(map[string]any{"pull_request": open.Number, "url": open.URL, "head": open.Head, "plan": plan.Hash, "credentials": group})
		return nil
	}
	a.printf("%s: the cutover is proposed in #%d, %s\n  plan %s\n", strings.Join(group, ", "), open.Number, open.URL, plan.Hash)
	return nil
}

// editedFiles are the stack files of a batch as they must be after the cutover, or
// after it was taken back, by their path in the repository; those of the default
// branch that say so already are left out.
func (w *wiring) editedFiles(ctx context.Context, client *githubapp.Client, base proposal.Base, ledger *rotation.Ledger, group []string, back bool) (files map[string]string, diff string, err error) {
	files = map[string]string{}
	wants := map[string][]stackfile.Want{}
	stacks := map[string]string{}
	for _, c := range w.cfg.Credentials {
		if c.Stack == nil || c.Stack.File == "" || !slices.Contains(group, c.Name) {
			continue
		}
		now := ledger.Credential(c.Name)
		v, ok := now.Version(now.Last().Number)
		if !back && now.Open != nil {
			v, ok = now.Version(now.Open.To)
		}
		if !ok {
			continue
		}
		path := w.app.inRepository(c.Stack.File)
		wants[path] = append(wants[path], deployed{c, v, now.Versions}.wants()...)
		stacks[path] = c.Stack.Name
	}
	for _, path := range sortedKeys(wants) {
		text, err := proposal.File(ctx, client, path, base.Commit)
		if err != nil {
			return nil, "", err
		}
		edited, err := edit(path, text, stacks[path], wants[path])
		if err != nil {
			return nil, "", err
		}
		if edited.Text != text {
			files[path] = edited.Text
			diff += edited.Diff
		}
	}
	return files, diff, nil
}

// edit writes a stack file anew. What only a person can change is refused.
func edit(path, text, stack string, wants []stackfile.Want) (stackfile.Edited, error) {
	f, err := stackfile.Parse(path, []byte(text))
	if err != nil {
		return stackfile.Edited{}, &usageError{err: fmt.Errorf("reading the stack file of the default branch: %w", err), hint: hintOf(err)}
	}
	if faults := f.Compare(stack, wants...).Faults; len(faults) > 0 {
		x := faults[0]
		return stackfile.Edited{}, rotation.Errorf(rotation.Refused, x.Tip, "the stack file is to be changed by hand first: %s:%d:%d: %s", path, x.Line, x.Column, x.Text)
	}
	edited, err := f.Edit(stack, wants...)
	if err != nil {
		return edited, rotation.Errorf(rotation.Refused, "write it otherwise, as docs/stack-files.md shows", "editing the stack file: %w", err)
	}
	return edited, nil
}

func proposalBranch(rotation string) string {
	return proposalPrefix + "cutover-" + strings.ToLower(rotation)
}

// proposal is the pull request of a batch.
func (w *wiring) proposal(ledger *rotation.Ledger, group []string, plan rotation.Plan, files map[string]string, diff string) proposal.Proposal {
	id := ledger.Credential(group[0]).Open.ID
	var moves []string
	for _, name := range group {
		open := ledger.Credential(name).Open
		moves = append(moves, fmt.Sprintf("%s %d → %d", name, open.From, open.To))
	}
	title := "Cut over " + strings.Join(moves, ", ")
	p := proposal.Proposal{Branch: proposalBranch(id), Title: title, Message: title + "\n\nRotation " + id + ", plan " + plan.Hash + ".\n",
		Files: files, Labels: []string{mirror.Label}, Body: w.proposalText(id, group, plan, diff)}
	for _, a := range w.policies(rotation.Cutover, group) {
		for _, by := range a.By {
			org, slug, team := strings.Cut(by, "/")
			switch {
			case !team && !slices.Contains(p.Reviewers, by):
				p.Reviewers = append(p.Reviewers, by)
			case team && w.app.hub != nil && strings.EqualFold(org, w.app.hub.owner) && !slices.Contains(p.Teams, slug):
				p.Teams = append(p.Teams, slug)
			}
		}
	}
	slices.Sort(p.Reviewers)
	slices.Sort(p.Teams)
	return p
}

// proposalText is what a reviewer reads.
func (w *wiring) proposalText(id string, group []string, plan rotation.Plan, diff string) string {
	var plain bytes.Buffer
	printPlan(&plain, plan)
	var b strings.Builder
	fmt.Fprintf(&b, "The next version of %s is stored, accepted and was tried from where the services are; nothing reads it yet.\n\n", strings.Join(group, ", "))
	fmt.Fprintf(&b, "What the cutover does:\n\n```\n%s```\n\n", strings.ReplaceAll(plain.String(), "```", "'''"))
	fmt.Fprintf(&b, "Plan `%s`. An approval is of this plan and of this commit: if either changes, it is asked for again.\n\n", plan.Hash)
	if diff != "" {
		fmt.Fprintf(&b, "<details><summary>what changes in the stack files</summary>\n\n```diff\n%s```\n</details>\n\n", strings.ReplaceAll(diff, "```", "'''"))
	}
	fmt.Fprintf(&b, "<!-- keyturn:rotation=%s plan=%s -->\n", id, plan.Hash)
	return b.String()
}

// discardProposals closes the pull requests of rotations that are not open any more,
// and gives up rotations whose pull request was closed.
func (w *wiring) discardProposals(ctx context.Context, client *githubapp.Client) error {
	ledger, err := w.ledger(ctx)
	if err != nil {
		return err
	}
	entries, err := w.entries(ctx)
	if err != nil {
		return err
	}
	var keep []string
	given := map[string]bool{}
	for _, name := range namesOf(w.cfg) {
		c := ledger.Credential(name)
		if c.Open == nil || c.Open.Phase != rotation.Validate && c.Open.Phase != rotation.Cutover {
			continue
		}
		keep = append(keep, proposalBranch(c.Open.ID))
		p := w.facts(rotation.Cutover, name, entries).Proposed
		if p == nil || c.Open.Phase != rotation.Validate || given[c.Open.ID] {
			continue
		}
		pr, _, err := client.PullRequests.Get(ctx, client.Owner, client.Repo, p.Number)
		if err != nil {
			return fmt.Errorf("reading pull request #%d: %w", p.Number, err)
		}
		if pr.GetState() != "closed" || pr.GetMerged() {
			continue
		}
		given[c.Open.ID] = true
		if w.credential(name).Mounts == "dual" {
			w.app.notef("pull request #%d was closed; giving the rotation up restarts services, so it is asked for: keyturn rollback --reason \"…\" %s", p.Number, name)
			continue
		}
		group := w.together(ledger, name, []string{name})
		sum, err := w.do(ctx, rotation.Rollback, group, phaseFlags{reason: fmt.Sprintf("pull request #%d was closed", p.Number), resumed: true})
		if err := w.app.report(sum, err, true); err != nil {
			return err
		}
	}
	closed, err := proposal.Discard(ctx, client, proposalPrefix+"cutover-", keep, "The rotation that this would have cut over is not open any more.")
	for _, n := range closed {
		w.app.notef("pull request #%d was closed: its rotation is not open any more", n)
	}
	return err
}

// proposeBack opens the pull request that takes a cutover back in the stack files.
func (w *wiring) proposeBack(ctx context.Context, group []string, id string) error {
	client, err := w.app.asking(w.cfg, mayPropose)
	if err != nil {
		return err
	}
	ledger, err := w.ledger(ctx)
	if err != nil {
		return err
	}
	base, err := proposal.Default(ctx, client)
	if err != nil {
		return err
	}
	files, diff, err := w.editedFiles(ctx, client, base, ledger, group, true)
	if err != nil || len(files) == 0 {
		return err
	}
	title := "Take back the cutover of " + strings.Join(group, ", ")
	p := proposal.Proposal{Branch: proposalPrefix + "rollback-" + strings.ToLower(id), Title: title, Message: title + "\n\nRotation " + id + ".\n",
		Files: files, Labels: []string{mirror.Label},
		Body: fmt.Sprintf("The services were taken back to the version before: the stack file must say so, or the next deploy takes them down.\n\n```diff\n%s```\n", strings.ReplaceAll(diff, "```", "'''"))}
	open, err := p.Put(ctx, client, base)
	if err == nil {
		w.app.notef("the stack file is to be taken back, too: #%d, %s", open.Number, open.URL)
	}
	return err
}

// hasStackFile reports whether a stack file in the checkout is named for a batch.
func (w *wiring) hasStackFile(group []string) bool {
	for _, c := range w.cfg.Credentials {
		if c.Stack != nil && c.Stack.File != "" && slices.Contains(group, c.Name) && filepath.IsLocal(c.Stack.File) {
			return true
		}
	}
	return false
}
