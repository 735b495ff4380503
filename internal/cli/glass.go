package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/keyturn/keyturn/internal/approval"
	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// glass is somebody's word that it is done without approvals.
type glass struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
	Ticket string `json:"ticket"`
}

// breakGlass lets an administrator do without approvals. It is on the record before
// anything is done, and in an issue.
func (w *wiring) breakGlass(ctx context.Context, phase rotation.Phase, group []string, f phaseFlags) (any, error) {
	who, admin, err := w.whoAsks(ctx)
	if err != nil {
		return nil, err
	}
	v := approval.BreakGlass{Who: who, Admin: admin, Reason: f.glass, Ticket: f.ticket}.Decide()
	if !v.Approved {
		return nil, rotation.Errorf(rotation.Refused, v.Hint(), "breaking the glass for %s of %s: %s", phase, strings.Join(group, ", "), v)
	}
	made := glass{who.Login, f.glass, f.ticket}
	var all []judged
	for _, name := range group {
		all = append(all, judged{Credential: name, Action: approval.Action(phase), Verdict: v, Glass: &made})
		if err := w.remember(ctx, name, phase, noteGlass, map[string]any{"by": who.Login, "id": who.ID, "reason": f.glass, "ticket": f.ticket}); err != nil {
			return nil, err
		}
	}
	w.app.notef("the glass was broken by %s for %s of %s; the next rotation waits until somebody else reviews it: keyturn approvals --reviewed %s",
		who.Login, phase, strings.Join(group, ", "), strings.Join(group, " "))
	w.glassIssue(ctx, phase, group, made)
	w.app.raise(notify.Incident, "glass/"+strings.Join(group, ", "), fmt.Sprintf("%s of %s without approvals", phase, strings.Join(group, ", ")), who.Login+": "+f.glass+" "+f.ticket)
	return all, nil
}

// guarded are the credentials of a group that not everybody may touch: people must
// approve, or some alone are allowed.
func (w *wiring) guarded(group []string) []string {
	return slices.DeleteFunc(slices.Clone(group), func(name string) bool {
		c := w.credential(name)
		return c.Approve == nil && c.Allow == nil
	})
}

// silent reports whether GitHub gave no answer, or that of a GitHub that fails.
func silent(err error) bool {
	if _, ok := errors.AsType[*url.Error](err); ok {
		return true
	}
	return githubapp.StatusOf(err) >= http.StatusInternalServerError
}

// mayRevoke lets an administrator of the repository revoke what people have to approve,
// or some alone may do: else a revocation would be a way round. That is on the record
// before anything is done, and the next rotation waits for its review. Where GitHub does
// not answer, whoever sits at a machine that reaches the Swarm is believed.
func (w *wiring) mayRevoke(ctx context.Context, group []string, f revokeFlags) error {
	names := w.guarded(group)
	if len(names) == 0 {
		return nil
	}
	by, id := w.sign.Actor.Name, int64(0)
	who, admin, err := w.whoAsks(ctx)
	switch {
	case err == nil:
		if v := (approval.BreakGlass{Who: who, Admin: admin, Reason: f.reason, Ticket: f.ticket}).Decide(); !v.Approved {
			return rotation.Errorf(rotation.Refused, v.Hint(), "revoking %s without approvals: %s", strings.Join(names, ", "), v)
		}
		by, id = who.Login, who.ID
	case !silent(err) || w.app.Getenv("GITHUB_ACTIONS") == "true":
		return fmt.Errorf("revoking %s without approvals: %w", strings.Join(names, ", "), err)
	default:
		w.app.notef("GitHub does not answer: who does this is not verified")
	}
	for _, name := range names {
		if err := w.remember(ctx, name, rotation.Revoke, noteGlass, map[string]any{"by": by, "id": id, "reason": f.reason, "ticket": f.ticket}); err != nil {
			return err
		}
	}
	w.app.notef("%s revokes %s without approvals; the next rotation waits until somebody else reviews it: keyturn approvals --reviewed %s",
		by, strings.Join(names, ", "), strings.Join(names, " "))
	return nil
}

// glassIssue opens the issue that follows a broken glass up.
func (w *wiring) glassIssue(ctx context.Context, phase rotation.Phase, group []string, g glass) {
	h, err := w.app.onGitHub(w.cfg)
	if err != nil {
		return
	}
	_, _, err = h.Client(mayWork).Issues.Create(ctx, h.owner, h.repo, &github.IssueRequest{
		Title:  github.String(fmt.Sprintf("Break-glass: %s of %s without approvals", phase, strings.Join(group, ", "))),
		Body:   github.String(fmt.Sprintf("By @%s.\n\n> %s\n\nTicket: %s\n\nThe next rotation waits until somebody else has reviewed it: `keyturn approvals --reviewed %s`\n", g.By, plainText(g.Reason), plainText(g.Ticket), strings.Join(group, " "))),
		Labels: &[]string{"keyturn-break-glass"}})
	if err != nil {
		w.app.notef("no issue could be opened about it: %v", err)
	}
}

// whoAsks returns who runs this, and whether it is an administrator of the repository.
func (w *wiring) whoAsks(ctx context.Context) (approval.Person, bool, error) {
	a := w.app
	h, err := a.onGitHub(w.cfg)
	if err != nil {
		return approval.Person{}, false, err
	}
	client := h.Client(mayApprove(approval.Policy{}))
	if a.Getenv("GITHUB_ACTIONS") == "true" {
		return approval.Administers(ctx, client, a.starter())
	}
	own, err := a.personal(h)
	if err != nil {
		return approval.Person{}, false, err
	}
	user, _, err := own.Users.Get(ctx, "")
	if err != nil {
		return approval.Person{}, false, rotation.Errorf(rotation.Refused, personalHint, "asking GitHub who you are: %w", err)
	}
	return approval.Administers(ctx, client, user.GetLogin())
}

const personalHint = "set GH_TOKEN to a token of your own: an App is nobody"

// personal asks GitHub as the person who sits here.
func (a *app) personal(h *hub) (*githubapp.Client, error) {
	for _, name := range []string{"GH_TOKEN", "GITHUB_TOKEN"} {
		token, err := secret.Source{Env: name}.Read(a.Getenv)
		if err != nil {
			continue
		}
		own, err := githubapp.New(githubapp.Options{API: h.Server(), Owner: h.owner, Repo: h.repo, Token: token, Mask: a.maskValue})
		if err != nil {
			return nil, err
		}
		return own.Client(github.InstallationPermissions{}), nil
	}
	return nil, rotation.Errorf(rotation.Refused, personalHint, "nobody says who does it")
}

// reviewedGlass refuses a new rotation while a broken glass was not reviewed.
func (w *wiring) reviewedGlass(ctx context.Context, group []string) error {
	var entries []journal.Entry
	err := w.each(ctx, func(e journal.Entry) {
		if e.Step == noteGlass || e.Step == noteReviewed {
			entries = append(entries, e)
		}
	})
	if err != nil {
		return err
	}
	for _, name := range group {
		if by, broken := brokenGlass(entries, name); broken {
			return rotation.Errorf(rotation.Refused, "somebody else than "+by+" looks at it, and says so: keyturn approvals --reviewed "+name,
				"preparing %q: %s did without approvals, and nobody has reviewed that", name, by)
		}
	}
	return nil
}

// brokenGlass returns who did without approvals last, if nobody has reviewed that.
func brokenGlass(entries []journal.Entry, name string) (by string, broken bool) {
	for _, e := range entries {
		if e.Credential != name {
			continue
		}
		switch e.Step {
		case noteGlass:
			broken = json.Unmarshal(e.Evidence["by"], &by) == nil
		case noteReviewed:
			broken = false
		}
	}
	return by, broken
}

// reviewGlass records that somebody else has looked at what was done without approvals.
func (a *app) reviewGlass(ctx context.Context, names []string) error {
	w, err := a.wire(ctx, phaseFlags{}, false)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.known(names); err != nil {
		return err
	}
	entries, err := w.entries(ctx)
	if err != nil {
		return err
	}
	who, _, err := w.whoAsks(ctx)
	if err != nil {
		return err
	}
	client, err := a.asking(w.cfg, mayApprove(approval.Policy{}))
	if err != nil {
		return err
	}
	mayWrite, err := approval.MayWrite(ctx, client, who.Login)
	if err != nil {
		return err
	}
	for _, name := range names {
		by, broken := brokenGlass(entries, name)
		if !broken {
			a.printf("%s: there is nothing to review\n", name)
			continue
		}
		v := approval.BreakGlass{Who: approval.Person{Login: by, ID: -1}}.Reviewed(who, mayWrite)
		if !v.Approved {
			return rotation.Errorf(rotation.Refused, v.Hint(), "reviewing what %s did to %q: %s", by, name, v)
		}
		if err := w.remember(ctx, name, "", noteReviewed, map[string]any{"by": who.Login, "id": who.ID}); err != nil {
			return err
		}
		a.printf("%s: %s has reviewed what %s did without approvals\n", name, who.Login, by)
	}
	a.send(ctx, w)
	return nil
}
