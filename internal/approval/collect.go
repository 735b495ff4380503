package approval

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/githubapp"
)

// A Subject is what facts are gathered about: what is known without GitHub.
type Subject struct {
	Policy     Policy
	Facts      Facts  // what the caller knows: the plan, the record, the time
	RunID      int64  // 0: there is none
	HeadSHA    string // that this job sees
	ConfigPath string // of the configuration in the repository
	Config     []byte // as this job reads it
}

// A collector reads facts.
type collector struct {
	*githubapp.Client
	Subject
	f *Facts
}

// Collect reads what GitHub says now. What cannot be read stands among the facts:
// there it refuses. An error is that of the context alone.
func Collect(ctx context.Context, client *githubapp.Client, s Subject) (Facts, error) {
	c := &collector{client, s, &s.Facts}
	c.repository(ctx)
	if c.RunID != 0 {
		c.run(ctx)
	}
	if s.Policy.Environment != "" {
		c.environment(ctx)
		if c.RunID != 0 {
			c.decisions(ctx)
		}
	}
	if s.Policy.PullRequest && c.f.Proposed != nil {
		c.pull(ctx)
		c.rules(ctx)
	}
	c.people(ctx)
	return *c.f, ctx.Err()
}

// unread notes what could not be read. What is not there is known.
func (c *collector) unread(what string, err error) {
	if err != nil {
		c.f.Unread = append(c.f.Unread, fmt.Sprintf("%s (%s)", what, brief(err)))
	}
}

// brief is an error of GitHub without its address.
func brief(err error) string {
	if refused, ok := errors.AsType[*github.ErrorResponse](err); ok && refused.Response != nil {
		text := fmt.Sprintf("GitHub answered %d", refused.Response.StatusCode)
		if needs := refused.Response.Header.Get("X-Accepted-GitHub-Permissions"); needs != "" {
			text += ", it needs " + needs
		}
		return text
	}
	return err.Error()
}

// get reads what go-github has no method for.
func get[T any](ctx context.Context, c *collector, format string, args ...any) (T, error) {
	var into T
	req, err := c.NewRequest(http.MethodGet, fmt.Sprintf(format, args...), nil)
	if err != nil {
		return into, err
	}
	_, err = c.Do(ctx, req, &into)
	return into, err
}

// repository reads the default branch, and whether the configuration is the one that stands there.
func (c *collector) repository(ctx context.Context) {
	repo, _, err := c.Repositories.Get(ctx, c.Owner, c.Repo)
	if err != nil {
		c.unread("the repository", err)
		return
	}
	c.f.Default = repo.GetDefaultBranch()
	ref := cmp.Or(c.HeadSHA, c.f.Default)
	file, _, _, err := c.Repositories.GetContents(ctx, c.Owner, c.Repo, c.ConfigPath, &github.RepositoryContentGetOptions{Ref: ref})
	if err != nil || file == nil {
		c.unread("the configuration "+c.ConfigPath+" of the default branch", cmp.Or(err, errors.New("it is no file")))
		return
	}
	text, err := file.GetContent()
	if err != nil {
		c.unread("the configuration "+c.ConfigPath+" of the default branch", err)
		return
	}
	if text == string(c.Config) {
		sum := sha256.Sum256(c.Config)
		c.f.PolicyFrom = hex.EncodeToString(sum[:])
	}
}

// account is an account as GitHub shows it.
type account struct {
	Login string `json:"login"`
	ID    int64  `json:"id"`
	Type  string `json:"type"`
}

func (a *account) person() Person {
	if a == nil {
		return Person{}
	}
	return Person{Login: a.Login, ID: a.ID, Bot: a.Type != "User"}
}

func person(u *github.User) Person {
	if u == nil {
		return Person{}
	}
	return Person{Login: u.GetLogin(), ID: u.GetID(), Bot: u.GetType() != "User"}
}

func (c *collector) run(ctx context.Context) {
	found, err := get[struct {
		ID      int64    `json:"id"`
		Attempt int      `json:"run_attempt"`
		Event   string   `json:"event"`
		Branch  string   `json:"head_branch"`
		SHA     string   `json:"head_sha"`
		Path    string   `json:"path"`
		Actor   *account `json:"actor"`
		Trigger *account `json:"triggering_actor"`
	}](ctx, c, "repos/%s/%s/actions/runs/%d", c.Owner, c.Repo, c.RunID)
	if err != nil {
		c.unread("this run", err)
		return
	}
	path, _, _ := strings.Cut(found.Path, "@") // a reference may stand behind it
	c.f.Run = &Run{ID: found.ID, Attempt: found.Attempt, Event: found.Event, Branch: found.Branch, SHA: found.SHA, HeadSHA: c.HeadSHA,
		Path: path, Actor: found.Actor.person(), Trigger: found.Trigger.person()}
	c.f.Started = cmp.Or(c.f.Started, c.f.Run.Trigger.Login)
}

func (c *collector) environment(ctx context.Context) {
	name := url.PathEscape(c.Policy.Environment)
	env, _, err := c.Repositories.GetEnvironment(ctx, c.Owner, c.Repo, name)
	if githubapp.Missing(err) {
		return
	}
	if err != nil {
		c.unread("the environment "+c.Policy.Environment, err)
		return
	}
	e := &Environment{ID: env.GetID(), Name: env.GetName(), AdminBypass: env.CanAdminsBypass == nil || *env.CanAdminsBypass}
	for _, rule := range env.ProtectionRules {
		if rule.GetType() == "required_reviewers" && len(rule.Reviewers) > 0 {
			e.Reviewers, e.PreventSelf = true, rule.GetPreventSelfReview()
		}
	}
	if p := env.DeploymentBranchPolicy; p != nil && p.GetCustomBranchPolicies() {
		policies, err := get[struct {
			Policies []struct {
				Name string `json:"name"`
			} `json:"branch_policies"`
		}](ctx, c, "repos/%s/%s/environments/%s/deployment-branch-policies?per_page=100", c.Owner, c.Repo, name)
		c.unread("the branches of the environment "+c.Policy.Environment, err)
		e.DefaultOnly = err == nil && len(policies.Policies) == 1 && policies.Policies[0].Name == c.f.Default
	}
	c.f.Env = e
}

// decisions reads what people said to the jobs of this run that waited.
func (c *collector) decisions(ctx context.Context) {
	found, err := get[[]struct {
		State        string   `json:"state"`
		User         *account `json:"user"`
		Environments []struct {
			ID int64 `json:"id"`
		} `json:"environments"`
	}](ctx, c, "repos/%s/%s/actions/runs/%d/approvals", c.Owner, c.Repo, c.RunID)
	if err != nil {
		c.unread("the approvals of this run", err)
		return
	}
	for _, d := range found {
		if d.State == "pending" {
			continue
		}
		decision := Decision{Approved: d.State == "approved", By: d.User.person()}
		for _, e := range d.Environments {
			decision.Environments = append(decision.Environments, e.ID)
		}
		c.f.Decisions = append(c.f.Decisions, decision)
	}
}

func (c *collector) pull(ctx context.Context) {
	number := c.f.Proposed.Number
	pr, _, err := c.PullRequests.Get(ctx, c.Owner, c.Repo, number)
	if err != nil {
		c.unread(fmt.Sprintf("pull request #%d", number), err)
		return
	}
	p := &Pull{Number: number, Open: pr.GetState() == "open", Merged: pr.GetMerged(), Draft: pr.GetDraft(), Base: pr.GetBase().GetRef(),
		Head: pr.GetHead().GetSHA(), MergedAs: pr.GetMergeCommitSHA(), Author: person(pr.User),
		Fork: pr.GetHead().GetRepo().GetID() == 0 || pr.GetHead().GetRepo().GetID() != pr.GetBase().GetRepo().GetID()}
	if p.Merged {
		p.InRun = c.contains(ctx, p.MergedAs)
	}
	c.makers(ctx, p)
	c.reviews(ctx, p)
	c.f.Pull = p
}

// past reports whether a merge is known to have gone past the rules of its branch. Few
// Apps may read that, and then it is not known: reviews are counted in any case.
func (c *collector) past(ctx context.Context, commit string) bool {
	found, err := get[[]struct {
		After  string `json:"after_sha"`
		Result string `json:"result"`
	}](ctx, c, "repos/%s/%s/rulesets/rule-suites?ref=%s&time_period=month&rule_suite_result=bypass&per_page=100", c.Owner, c.Repo, url.QueryEscape("refs/heads/"+c.f.Default))
	if err != nil {
		return false
	}
	for _, s := range found {
		if s.After == commit && s.Result == "bypass" {
			return true
		}
	}
	return false
}

// contains reports whether what this run sees holds a commit.
func (c *collector) contains(ctx context.Context, commit string) bool {
	if commit == "" || c.HeadSHA == "" {
		return false
	}
	if commit == c.HeadSHA {
		return true
	}
	diff, _, err := c.Repositories.CompareCommits(ctx, c.Owner, c.Repo, commit, c.HeadSHA, &github.ListOptions{PerPage: 1})
	if err != nil {
		c.unread("whether the run holds the merge", err)
		return false
	}
	return diff.GetStatus() == "ahead" || diff.GetStatus() == "identical"
}

var (
	coAuthor = regexp.MustCompile(`(?im)^co-authored-by:.*<([^>]+)>\s*$`)
	noReply  = regexp.MustCompile(`^(?:\d+\+)?([^@+]+)@users\.noreply\.`)
)

// makers reads who made the commits of a pull request.
func (c *collector) makers(ctx context.Context, p *Pull) {
	commits, err := githubapp.All(func(page github.ListOptions) ([]*github.RepositoryCommit, *github.Response, error) {
		return c.PullRequests.ListCommits(ctx, c.Owner, c.Repo, p.Number, &page)
	})
	c.unread(fmt.Sprintf("the commits of pull request #%d", p.Number), err)
	for _, commit := range commits {
		for _, u := range []*github.User{commit.Author, commit.Committer} {
			if u.GetLogin() == "" {
				p.Unnamed = true
				continue
			}
			p.Makers = append(p.Makers, u.GetLogin())
		}
		for _, m := range coAuthor.FindAllStringSubmatch(commit.GetCommit().GetMessage(), -1) {
			if login := noReply.FindStringSubmatch(strings.TrimSpace(m[1])); login != nil {
				p.Makers = append(p.Makers, login[1])
			} else {
				p.Unnamed = true
			}
		}
	}
}

func (c *collector) reviews(ctx context.Context, p *Pull) {
	reviews, err := githubapp.All(func(page github.ListOptions) ([]*github.PullRequestReview, *github.Response, error) {
		return c.PullRequests.ListReviews(ctx, c.Owner, c.Repo, p.Number, &page)
	})
	c.unread(fmt.Sprintf("the reviews of pull request #%d", p.Number), err)
	for _, r := range reviews {
		p.Reviews = append(p.Reviews, Review{ID: r.GetID(), By: person(r.User), State: r.GetState(), Head: r.GetCommitID(), At: r.GetSubmittedAt().Time})
	}
}

// rules reads what the default branch asks of a pull request by itself.
func (c *collector) rules(ctx context.Context) {
	found, err := get[[]struct {
		Type       string `json:"type"`
		Parameters struct {
			Count      int  `json:"required_approving_review_count"`
			CodeOwners bool `json:"require_code_owner_review"`
		} `json:"parameters"`
	}](ctx, c, "repos/%s/%s/rules/branches/%s?per_page=100", c.Owner, c.Repo, url.PathEscape(c.f.Default))
	if err != nil {
		c.unread("the rules of the default branch", err)
		return
	}
	r := &Rules{}
	for _, rule := range found {
		if rule.Type == "pull_request" {
			r.Count, r.CodeOwners = max(r.Count, rule.Parameters.Count), r.CodeOwners || rule.Parameters.CodeOwners
		}
	}
	if p := c.f.Pull; p != nil && p.Merged && (r.Count > 0 || r.CodeOwners) {
		r.Bypassed = c.past(ctx, p.MergedAs)
	}
	if r.CodeOwners {
		r.Satisfied = c.reviewDecision(ctx)
	}
	c.f.Rules = r
}

// reviewDecision asks GitHub whether all that its rules demand of a pull request is given.
func (c *collector) reviewDecision(ctx context.Context) bool {
	query := map[string]any{
		"query":     "query($o:String!,$r:String!,$n:Int!){repository(owner:$o,name:$r){pullRequest(number:$n){reviewDecision}}}",
		"variables": map[string]any{"o": c.Owner, "r": c.Repo, "n": c.f.Proposed.Number},
	}
	at := *c.BaseURL
	at.Path = strings.TrimSuffix(strings.TrimSuffix(at.Path, "/"), "/v3") + "/graphql"
	req, err := c.NewRequest(http.MethodPost, at.String(), query)
	if err != nil {
		c.unread("GitHub's own decision", err)
		return false
	}
	var answer struct {
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
		Data struct {
			Repository struct {
				PullRequest struct {
					ReviewDecision string `json:"reviewDecision"`
				} `json:"pullRequest"`
			} `json:"repository"`
		} `json:"data"`
	}
	_, err = c.Do(ctx, req, &answer)
	if err == nil && len(answer.Errors) > 0 { // they come with 200
		err = errors.New(answer.Errors[0].Message)
	}
	c.unread("GitHub's own decision", err)
	return err == nil && answer.Data.Repository.PullRequest.ReviewDecision == "APPROVED"
}

// people reads what those whose word may count may do now, and which teams they are in.
func (c *collector) people(ctx context.Context) {
	c.f.MayWrite, c.f.MemberOf = map[string]bool{}, map[string][]string{}
	for _, login := range c.candidates() {
		c.f.MayWrite[key(login)] = c.mayWrite(ctx, login)
		for _, team := range c.Policy.By {
			if org, slug, ok := strings.Cut(team, "/"); ok && c.isMember(ctx, org, slug, login) {
				c.f.MemberOf[key(login)] = append(c.f.MemberOf[key(login)], team)
			}
		}
	}
}

// candidates are the people whose approvals or objections are there.
func (c *collector) candidates() []string {
	var out []string
	add := func(p Person) {
		if p.Login != "" && !p.Bot && !slices.Contains(out, p.Login) {
			out = append(out, p.Login)
		}
	}
	for _, d := range c.f.Decisions {
		add(d.By)
	}
	if c.f.Pull != nil {
		for _, r := range latest(c.f.Pull.Reviews) {
			add(r.By)
		}
	}
	return out
}

func (c *collector) mayWrite(ctx context.Context, login string) bool {
	level, _, err := c.Repositories.GetPermissionLevel(ctx, c.Owner, c.Repo, login)
	if githubapp.Missing(err) {
		return false
	}
	c.unread("what "+login+" may do", err)
	return err == nil && slices.Contains(writers, level.GetPermission())
}

func (c *collector) isMember(ctx context.Context, org, slug, login string) bool {
	is, err := IsMember(ctx, c.Client, org, slug, login)
	c.unread(fmt.Sprintf("whether %s is in %s/%s", login, org, slug), err)
	return is
}

// IsMember reports whether somebody is in a team now: who was asked and has not
// answered is not.
func IsMember(ctx context.Context, client *githubapp.Client, org, slug, login string) (bool, error) {
	m, _, err := client.Teams.GetTeamMembershipBySlug(ctx, org, slug, login)
	if githubapp.Missing(err) {
		return false, nil
	}
	return err == nil && m.GetState() == "active", err
}

// MayWrite reports whether somebody may write to the repository now.
func MayWrite(ctx context.Context, client *githubapp.Client, login string) (bool, error) {
	level, _, err := client.Repositories.GetPermissionLevel(ctx, client.Owner, client.Repo, login)
	if err != nil {
		return false, fmt.Errorf("asking what %s may do: %w", login, err)
	}
	return slices.Contains(writers, level.GetPermission()), nil
}

// writers are the permissions of those who may write.
var writers = []string{"admin", "maintain", "write"}

// Administers reports whether somebody is an administrator of the repository now,
// and who it is.
func Administers(ctx context.Context, client *githubapp.Client, login string) (Person, bool, error) {
	level, _, err := client.Repositories.GetPermissionLevel(ctx, client.Owner, client.Repo, login)
	if err != nil {
		return Person{Login: login}, false, fmt.Errorf("asking what %s may do: %w", login, err)
	}
	return person(level.User), level.GetPermission() == "admin", nil
}
