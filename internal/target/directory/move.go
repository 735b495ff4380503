package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A links is where the links of a home lead; "" means that there is none.
type links struct {
	Current string `json:"current,omitempty"`
	Next    string `json:"next,omitempty"`
}

// readLinks reads both links.
func (h *home) readLinks() (l links, err error) {
	if l.Current, err = h.link(currentLink); err != nil {
		return l, err
	}
	l.Next, err = h.link(nextLink)
	return l, err
}

// Snapshot returns, by service, where the links of its credentials lead.
func (t *Target) Snapshot(_ context.Context, placements []rotation.Placement) (map[string]json.RawMessage, error) {
	byService := map[string]map[string]links{}
	for _, p := range placements {
		l, err := t.linksOf(p.Credential)
		if err != nil {
			return nil, fmt.Errorf("looking at what %q reads of %q: %w", service(p), p.Credential, err)
		}
		if byService[service(p)] == nil {
			byService[service(p)] = map[string]links{}
		}
		byService[service(p)][p.Credential] = l
	}
	snapshot := map[string]json.RawMessage{}
	for name, l := range byService {
		b, err := json.Marshal(l)
		if err != nil {
			return nil, err
		}
		snapshot[name] = b
	}
	return snapshot, nil
}

func (t *Target) linksOf(credential string) (links, error) {
	h, err := t.open(credential, false)
	if errors.Is(err, fs.ErrNotExist) {
		return links{}, nil
	}
	if err != nil {
		return links{}, err
	}
	defer h.close()
	return h.readLinks()
}

// A turn is what one credential is to be moved to, with the services that read it.
type turn struct {
	credential string
	services   []string
	main       rotation.Version
	beside     *rotation.Version
	want       links
	known      []string // where the links may be found to lead
	changed    bool
	due        bool // the restart command has to run
}

// Move makes the links lead to what the shifts say, each by one rename, and
// then runs the restart commands of the credentials that moved, each command
// once. Every shift is checked before the first link changes: its version must
// be whole, and its links must lead to versions that the shift knows. A restart
// that a killed call left undone is made up for.
func (t *Target) Move(ctx context.Context, shifts []rotation.Shift) (rotation.Report, error) {
	begun := time.Now()
	turns, err := t.turns(shifts)
	if err != nil {
		return rotation.Report{}, err
	}
	for _, n := range turns {
		if err := t.ready(n); err != nil {
			return report(turns, begun, nil), err
		}
	}
	for _, n := range turns {
		if err := t.turn(ctx, n); err != nil {
			return report(turns, begun, nil), fmt.Errorf("moving %q to version %d: %w", n.credential, n.main.Number, err)
		}
	}
	ill, err := t.restart(ctx, turns)
	return report(turns, begun, ill), err
}

// turns groups the shifts by credential. Services that read one credential
// from one directory cannot read different versions of it.
func (t *Target) turns(shifts []rotation.Shift) ([]*turn, error) {
	by := map[string]*turn{}
	for _, s := range shifts {
		name := s.Placement.Credential
		if err := checkPlacement(s.Placement); err != nil {
			return nil, err
		}
		n, err := newTurn(s)
		if err != nil {
			return nil, about("moving to", s.Main, err)
		}
		if have := by[name]; have == nil {
			by[name] = n
		} else if have.want != n.want {
			return nil, rotation.Errorf(rotation.Invalid, "", "the services %q and %q are to read different versions of %q from one directory",
				have.services[0], n.services[0], name)
		} else {
			have.services = append(have.services, n.services...)
			have.known = append(have.known, n.known...)
		}
	}
	turns := make([]*turn, 0, len(by))
	for _, name := range slices.Sorted(maps.Keys(by)) {
		turns = append(turns, by[name])
	}
	return turns, nil
}

func newTurn(s rotation.Shift) (*turn, error) {
	n := &turn{credential: s.Placement.Credential, services: []string{service(s.Placement)}, main: s.Main, beside: s.Beside}
	versions := append([]rotation.Version{s.Main}, s.Known...)
	if s.Beside != nil {
		versions = append(versions, *s.Beside)
	}
	for _, v := range versions {
		p, err := placeOf(v)
		if err != nil {
			return nil, err
		}
		if v.Credential != n.credential {
			return nil, rotation.Errorf(rotation.Invalid, "", "a version of %q cannot be read as %q", v.Credential, n.credential)
		}
		n.known = append(n.known, p.dir)
	}
	n.want.Current = n.known[0]
	if s.Beside != nil {
		n.want.Next = n.known[len(n.known)-1]
	}
	return n, nil
}

// ready checks that a turn can be made, without changing anything.
func (t *Target) ready(n *turn) error {
	h, err := t.open(n.credential, false)
	if err != nil {
		return about("moving to", n.main, err)
	}
	defer h.close()
	versions := []rotation.Version{n.main}
	if n.beside != nil {
		versions = append(versions, *n.beside)
	}
	for _, v := range versions {
		if err := t.whole(h, v); err != nil {
			return about("moving to", v, err)
		}
	}
	have, err := h.readLinks()
	if err != nil {
		return about("moving to", n.main, err)
	}
	for link, to := range map[string]string{currentLink: have.Current, nextLink: have.Next} {
		if to != "" && !slices.Contains(n.known, to) {
			return about("moving to", n.main, rotation.Errorf(rotation.Refused,
				"somebody else moved it: see who, and point it back to the version that Keyturn knows",
				"the symlink %q leads to %q, which is no version on the record", path.Join(n.credential, link), to))
		}
	}
	return nil
}

// whole returns an error unless every field that the version needs is there.
func (t *Target) whole(h *home, v rotation.Version) error {
	p, err := placeOf(v)
	if err != nil {
		return err
	}
	names, err := h.present(p)
	if err != nil {
		return err
	}
	if lost := missing(names, t.required(v)); len(lost) > 0 {
		return fmt.Errorf("it is not whole: the files of %s are missing in %q", strings.Join(lost, ", "), path.Join(v.Credential, p.dir))
	}
	if len(names) == 0 {
		return fmt.Errorf("it is not there: %q holds no field", path.Join(v.Credential, p.dir))
	}
	return nil
}

// turn moves the links of one credential. The current one comes first: what is
// beside it may be the fallback of applications until then.
func (t *Target) turn(ctx context.Context, n *turn) error {
	h, err := t.open(n.credential, false)
	if err != nil {
		return err
	}
	defer h.close()
	if err := errors.Join(ctx.Err(), h.lock(ctx)); err != nil {
		return err
	}
	if err := h.sweep(); err != nil {
		return err
	}
	have, err := h.readLinks()
	if err != nil {
		return err
	}
	_, restarts := t.Restart[n.credential]
	n.changed = have != n.want
	if n.due = h.due(); n.changed && restarts {
		if err := h.markDue(); err != nil {
			return err
		}
		n.due = true
	}
	if !restarts && n.due { // the command is configured no more
		if err := h.settled(); err != nil {
			return err
		}
		n.due = false
	}
	if err := h.point(currentLink, have.Current, n.want.Current); err != nil {
		return err
	}
	if err := h.point(nextLink, have.Next, n.want.Next); err != nil {
		return err
	}
	if n.changed {
		return nil // and durable
	}
	return h.sync() // what a killed call renamed and did not sync
}

// point makes a link lead to a place, or go away, durably.
func (h *home) point(link, have, want string) error {
	if have == want {
		return nil
	}
	if want == "" {
		if err := h.Remove(link); err != nil {
			return err
		}
		h.at("removed " + link)
		return h.sync()
	}
	tmp := temporary(link, "tmp")
	if err := h.Symlink(want, tmp); err != nil {
		return err
	}
	h.at("made link")
	if err := h.Rename(tmp, link); err != nil {
		return errors.Join(err, h.discard(tmp))
	}
	h.at("renamed " + link)
	return h.sync()
}

// report says what was done, by service.
func report(turns []*turn, begun time.Time, ill map[string]string) rotation.Report {
	by := map[string]rotation.ServiceReport{}
	for _, n := range turns {
		for _, name := range n.services {
			r := by[name]
			r.Service, r.Updated = name, r.Updated || n.changed
			if n.due {
				r.Restarts = 1
			}
			if ill[n.credential] != "" {
				r.Unhealthy = ill[n.credential]
			}
			if n.changed || n.due {
				r.Millis = time.Since(begun).Milliseconds()
			}
			by[name] = r
		}
	}
	var r rotation.Report
	for _, name := range slices.Sorted(maps.Keys(by)) {
		r.Services = append(r.Services, by[name])
	}
	return r
}
