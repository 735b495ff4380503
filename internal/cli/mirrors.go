package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/githubapp"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/mirror"
	"github.com/keyturn/keyturn/internal/rotation"
)

// tell sends what a phase has recorded, and shows it where people look: the
// issue of the rotation, the statuses of the commit. What cannot be shown is no
// failure of the phase: the record has it, and shows it later.
func (w *wiring) tell(ctx context.Context, phase rotation.Phase, group []string, sum rotation.Summary, failure error) {
	a := w.app
	far, ok := w.home.(branchHome)
	if !ok {
		return
	}
	_, spools := w.journal.(*spooled)
	defer w.keepCopy(ctx, far)
	waits := failure == nil && sum.Outcome == rotation.Waiting // again and again, and nothing comes of it
	if spools && !a.send(ctx, w) || !spools && waits || sum.Rotation == "" || ctx.Err() != nil {
		return
	}
	if phase == rotation.Rollback && failure == nil && w.hasStackFile(group) {
		if err := w.proposeBack(ctx, group, sum.Rotation); err != nil {
			a.notef("no pull request could be opened that takes the stack file back: %v", err)
		}
	}
	ledger, err := rotation.Replay(placed(far.Known(), 0))
	if err != nil {
		a.notef("the rotation could not be shown on GitHub: %v", err)
		return
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	r := w.showing(ledger, phase, group, sum, failure)
	if err := show(ctx, mirrored(far.hub.Client(mayWork)), far.Known(), r); err != nil {
		a.notef("the rotation could not be shown on GitHub, which keyturn audit verify --repair does later: %v", err)
	}
}

// mirrored is where the mirrors are, as a client may use it.
func mirrored(client *githubapp.Client) mirror.Repository {
	return mirror.Repository{Client: client.Client, Owner: client.Owner, Repo: client.Repo}
}

// show makes the mirrors of a rotation.
func show(ctx context.Context, place mirror.Repository, entries []journal.Entry, r mirror.Report) error {
	p := mirror.Publisher{Repository: place}
	_, err := p.Publish(ctx, entries, r)
	return err
}

// closed reports whether a rotation of credentials is at its end.
func closed(ledger *rotation.Ledger, id string, names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		open := ledger.Credential(name).Open
		return open != nil && open.ID == id
	})
}

// showing is what the mirrors say of a phase.
func (w *wiring) showing(ledger *rotation.Ledger, phase rotation.Phase, group []string, sum rotation.Summary, failure error) mirror.Report {
	r := mirror.Report{Rotation: sum.Rotation, Phase: string(phase), Credentials: group, Commit: w.app.Getenv("GITHUB_SHA"),
		Done: failure == nil && sum.Outcome == rotation.Done, Failed: failure != nil, Closed: closed(ledger, sum.Rotation, group), Title: "Rotation of " + strings.Join(group, ", ")}
	var moves []string
	for _, name := range group {
		c := ledger.Credential(name)
		if c.Open != nil && c.Open.ID == sum.Rotation {
			moves = append(moves, fmt.Sprintf("%s %d → %d", name, c.Open.From, c.Open.To))
		}
	}
	if len(moves) > 0 {
		r.Title = "Rotation of " + strings.Join(moves, ", ")
	}
	r.Text = w.inWords(phase, sum, failure)
	return r
}

// inWords says for people what a phase came to.
func (w *wiring) inWords(phase rotation.Phase, sum rotation.Summary, failure error) string {
	var b strings.Builder
	outcome := "done"
	switch {
	case failure != nil:
		outcome = "failed"
	case sum.Outcome == rotation.Waiting:
		outcome = "waits for " + waitWords(sum)
	}
	fmt.Fprintf(&b, "**%s** %s, in %s", phase, outcome, seconds(sum.Millis))
	if w.sign.Run.URL != "" {
		fmt.Fprintf(&b, " ([run](%s), attempt %d)", w.sign.Run.URL, max(w.sign.Run.Attempt, 1))
	}
	fmt.Fprintf(&b, ", by %s\n", plainText(w.sign.Actor.Name))
	if failure != nil {
		fmt.Fprintf(&b, "\n> %s\n", plainText(failure.Error()))
	}
	for _, s := range sum.Services {
		fmt.Fprintf(&b, "- `%s`: %s\n", s.Service, serviceWords(s))
	}
	for _, note := range sum.Notes {
		fmt.Fprintf(&b, "- %s\n", plainText(note))
	}
	return b.String()
}

// maxWords is how much of a text from elsewhere a comment repeats.
const maxWords = 2000

// plainText keeps what a server said from being read as Markdown, or as somebody's name.
func plainText(s string) string {
	s = strings.NewReplacer("\n", " ", "<", "&lt;", "@", "@\u200b", "`", "'", "|", `\|`, "[", `\[`, "*", `\*`, "_", `\_`, "#", `\#`).Replace(s)
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + " …"
	}
	return s
}

// rotationsOf returns the rotations that a journal holds, oldest first, each with
// its credentials.
func rotationsOf(records []rotation.Record) (ids []string, credentials map[string][]string) {
	credentials = map[string][]string{}
	for _, r := range records {
		if r.Rotation == "" || r.Credential == "" {
			continue
		}
		if _, known := credentials[r.Rotation]; !known {
			ids = append(ids, r.Rotation)
		}
		if !slices.Contains(credentials[r.Rotation], r.Credential) {
			credentials[r.Rotation] = append(credentials[r.Rotation], r.Credential)
		}
	}
	return ids, credentials
}
