package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/scaffold"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// journal opens the record, reads it whole, and looks whether it can be written.
func (e *examination) journal(ctx context.Context) ([]rotation.Remark, error) {
	if e.cfg.JournalGitHub {
		return e.readJournal(ctx, "")
	}
	path, err := e.journalPath(e.cfg)
	if err != nil {
		return nil, err
	}
	if err := journal.Outside(path, e.Getenv("GITHUB_WORKSPACE")); err != nil {
		return nil, fmt.Errorf("the journal %s: %w", path, err)
	}
	said, err := e.readJournal(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := writable(path); err != nil {
		return nil, usagef("give this user the right, or name another file: journal: file:…", "the journal %s cannot be written: %w", path, err)
	}
	return said, nil
}

// readJournal reads the whole record; of a file, path names it.
func (e *examination) readJournal(ctx context.Context, path string) ([]rotation.Remark, error) {
	home, note, err := e.open(ctx, e.cfg, true)
	if err != nil {
		return nil, err
	}
	text := note
	if far, ok := home.(branchHome); ok {
		path = far.String()
	}
	if home != nil {
		var records []rotation.Record
		if err := newRecords(home, journal.Entry{}).Each(ctx, func(r rotation.Record) { records = append(records, r) }); err != nil {
			return nil, err
		}
		if e.ledger, err = rotation.Replay(records); err != nil {
			return nil, err
		}
		e.stored, e.proven = storedIn(records), provenIn(records)
		if e.wanted() {
			e.measureRecord(records, "")
		}
		e.home, text = home, fmt.Sprintf("%s: %s, the chain is whole", path, counted(len(records), "record"))
	}
	return []rotation.Remark{{Level: rotation.Fine, Text: text}}, nil
}

// storedIn returns, by credential, the name of every secret that was ever one's,
// and of which version: the ledger forgets those that were removed.
func storedIn(records []rotation.Record) map[string]map[string]int {
	out := map[string]map[string]int{}
	for _, r := range records {
		var v rotation.Version
		if json.Unmarshal(r.Evidence["version"], &v) != nil || v.Number == 0 {
			continue // it says nothing of a version
		}
		for _, o := range v.Objects {
			if out[r.Credential] == nil {
				out[r.Credential] = map[string]int{}
			}
			out[r.Credential][o.Name] = v.Number
		}
	}
	return out
}

// writable asks whether a file, or the nearest folder that is there, may be written.
func writable(path string) error {
	for {
		_, err := os.Lstat(path)
		if err == nil {
			return unix.Access(path, unix.W_OK)
		}
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return err
		}
		path = filepath.Dir(path)
	}
}

// record says where the credential stands.
func (e *examination) record(c config.Credential, now rotation.Credential) []rotation.Remark {
	if now.Burnt == 0 {
		return []rotation.Remark{{Level: rotation.Warning, Text: "nothing is on record: it was not adopted yet", Hint: "keyturn adopt --dry-run " + c.Name}}
	}
	out := []rotation.Remark{{Level: rotation.Fine, Text: positionWords(rotation.PositionOf(now))}}
	for _, q := range now.Queue {
		out = append(out, rotation.Remark{Level: rotation.Problem, Hint: "keyturn cleanup " + c.Name,
			Text: fmt.Sprintf("on the retirement queue since %s: %s of version %d: %s", clock(q.Since), q.Step, q.Version, q.Why)})
	}
	late := e.Now().Sub(now.LastSuccess.Add(c.Every))
	switch {
	case now.Open != nil && rotation.NextPhase(now) == rotation.Rollback:
		out = append(out, rotation.Remark{Level: rotation.Problem, Text: "a rollback was interrupted", Hint: nextCommand(rotation.Rollback, c.Name)})
	case now.Open != nil && !now.OverlapUntil.IsZero() && e.Now().After(now.OverlapUntil.Add(c.Grace)):
		out = append(out, rotation.Remark{Level: rotation.Problem, Text: "overlap and grace are over, and the previous version was not ended", Hint: "keyturn cleanup " + c.Name})
	case now.Open == nil && !now.LastSuccess.IsZero() && late > c.Overlap:
		out = append(out, rotation.Remark{Level: rotation.Problem, Text: "it was due " + clock(now.LastSuccess.Add(c.Every)), Hint: "does the schedule run? keyturn rotate " + c.Name})
	}
	return out
}

// services checks what prepare would check in the target. What was not adopted
// yet is looked at as adoption would find it.
func (e *examination) services(ctx context.Context, w *wiring, c config.Credential, now rotation.Credential) ([]rotation.Remark, error) {
	if now.Burnt == 0 && !w.target(c.Name).Traits().OneVersion {
		found, err := w.target(c.Name).(adopter).Adopt(ctx, c.Name)
		if err != nil {
			return nil, err
		}
		found.State = rotation.Current
		now = rotation.Credential{Name: c.Name, Versions: []rotation.Version{found}, Burnt: 1}
		e.seen = &now
	}
	x, ok := w.target(c.Name).(rotation.Preflighter)
	if !ok {
		return nil, nil
	}
	fine := "every reader is declared, and what they read can be moved"
	switch {
	case apart(w.procs[c.Name]):
		fine = "it is looked at from outside, by what stands under probe"
	case w.target(c.Name).Traits().OneVersion:
		fine = "the secrets can be overwritten"
	case w.swarm != nil:
		fine = "every user is declared, all have converged, and tasks can be replaced as the rollout says"
	}
	return preflight(x, now, fine)(ctx)
}

// endpoints compares where services say that the backend is with where probes try it.
func endpoints(ctx context.Context, w *wiring, c config.Credential) ([]rotation.Remark, error) {
	services, err := w.swarm.Found(ctx)
	if err != nil {
		return nil, nil // the Swarm's own check says it
	}
	tried := w.procs[c.Name].Backend.ProbeSpec(rotation.Version{Credential: c.Name, Number: 1}).Endpoints
	var out []rotation.Remark
	for _, s := range c.Services {
		i := slices.IndexFunc(services, func(f swarm.Found) bool { return f.Name == s.Name })
		if i < 0 {
			continue
		}
		place := scaffold.PlaceOf(scaffold.Service{Env: services[i].Env}, sortedKeys(s.File)...)
		out = append(out, compareEndpoint(s.Name, place, tried))
	}
	return out, nil
}

func compareEndpoint(service string, p scaffold.Place, tried []string) rotation.Remark {
	if p.Host == "" {
		return rotation.Remark{Level: rotation.Fine, Text: fmt.Sprintf("service %q: where it reaches the database stands in no variable that is known by its name: not compared", service)}
	}
	p.Port = or(p.Port, "5432")
	said := p.Host + ":" + p.Port + "/" + p.Database
	for _, e := range tried {
		u, err := url.Parse(e)
		if err == nil && strings.EqualFold(u.Hostname(), p.Host) && or(u.Port(), "5432") == p.Port && (p.Database == "" || u.Path == "/"+p.Database) {
			return rotation.Remark{Level: rotation.Fine, Text: fmt.Sprintf("service %q reaches the database at %s, where it is tried", service, said)}
		}
	}
	return rotation.Remark{Level: rotation.Warning, Text: fmt.Sprintf("service %q reaches the database at %s, and it is tried at %s", service, said, strings.Join(tried, ", ")),
		Hint: "name the way that services take: probe: [postgres://" + said + "]"}
}

// leftovers finds objects in the Swarm that no version in life has.
func (e *examination) leftovers(ctx context.Context, w *wiring, c rotation.Credential) ([]rotation.Remark, error) {
	orphans, err := w.swarm.Orphans(ctx, c.Name)
	if err != nil {
		return nil, err
	}
	there, err := w.swarm.SecretNames(ctx)
	if err != nil {
		return nil, err
	}
	var out []rotation.Remark
	for _, o := range orphans {
		if _, known := c.Version(o.Version.Number); !known {
			out = append(out, rotation.Remark{Level: rotation.Problem, Hint: "if nobody else rotates it, remove them by hand",
				Text: fmt.Sprintf("secrets of version %d stand in the Swarm and not in this journal: %s", o.Version.Number, objectNames(o.Version))})
		}
	}
	for _, name := range sortedKeys(e.stored[c.Name]) {
		v, _ := c.Version(e.stored[c.Name][name])
		over := v.State == rotation.Retired || v.State == rotation.Discarded
		queued := slices.ContainsFunc(c.Queue, func(p rotation.Parked) bool { return p.Version == v.Number })
		if over && !queued && slices.Contains(there, name) {
			out = append(out, rotation.Remark{Level: rotation.Problem, Hint: "deploy a stack file that names the new one, then: docker secret rm " + name,
				Text: fmt.Sprintf("the secret %s of version %d, which is %s, was made again, by a deploy of an old stack file: its login is dead", name, v.Number, v.State)})
		}
	}
	if len(out) == 0 {
		out = append(out, rotation.Remark{Level: rotation.Fine, Text: "nothing was left in the Swarm"})
	}
	return out, nil
}

func objectNames(v rotation.Version) string {
	var names []string
	for _, field := range sortedKeys(v.Objects) {
		names = append(names, v.Objects[field].Name)
	}
	return strings.Join(names, ", ")
}

// stackRemarks says what the stack file should say otherwise.
func stackRemarks(c config.Credential, now rotation.Credential) []rotation.Remark {
	if c.Stack == nil {
		return nil
	}
	if c.Stack.File == "" {
		return []rotation.Remark{{Level: rotation.Warning, Hint: "stack: {name: " + c.Stack.Name + ", file: deploy/" + c.Stack.Name + ".yml}",
			Text: "its stack file is not named: whether a deploy would bring an old version back cannot be told"}}
	}
	v, ok := now.In(rotation.Current)
	if !ok {
		return readable(c)
	}
	var out []rotation.Remark
	say := func(level rotation.Level, places []place) {
		for _, p := range places {
			out = append(out, rotation.Remark{Level: level, Text: p.Text, Hint: p.Hint})
		}
	}
	for _, s := range sheets([]deployed{{c, v, now.Versions}}) {
		say(rotation.Problem, s.Faults)
		say(rotation.Problem, s.Stale)
		say(rotation.Warning, s.Notes)
		if s.Diff != "" {
			out = append(out, rotation.Remark{Level: rotation.Fine, Text: "the change as a whole: keyturn status " + c.Name})
		}
		if s.right() {
			out = append(out, rotation.Remark{Level: rotation.Fine, Text: s.File + ": a deploy of it changes nothing"})
		}
	}
	return out
}

// readable reads the stack file of a credential of which it is not known what
// services are to read.
func readable(c config.Credential) []rotation.Remark {
	f, err := readStackFile(c.Stack.File)
	if err != nil {
		return []rotation.Remark{{Level: rotation.Problem, Text: err.Error(), Hint: hintFor(err)}}
	}
	return []rotation.Remark{{Level: rotation.Fine, Text: f.Name + " can be read; it is compared once the credential is adopted"}}
}
