package rotation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Plan says what the next rotation of a credential will do. Making it changes
// nothing. No time and no measurement goes into its hash, so that the same
// plan made later has the same one.
type Plan struct {
	Credential string        `json:"credential"`
	From       int           `json:"from"` // 0: there is none yet
	To         int           `json:"to"`
	Was        string        `json:"was,omitempty"` // identities
	Becomes    string        `json:"becomes,omitempty"`
	Stands     string        `json:"stands,omitempty"` // where an open rotation stands
	Overlap    time.Duration `json:"overlap"`
	Mounts     Mounts        `json:"mounts,omitempty"`
	Creates    []string      `json:"creates,omitempty"` // names of objects
	Removes    []string      `json:"removes,omitempty"`
	Services   []ServicePlan `json:"services,omitempty"`
	Reads      []string      `json:"reads,omitempty"`    // what the applications must read
	Warnings   []string      `json:"warnings,omitempty"` // worth knowing, in the way of nothing
	Blocked    []string      `json:"blocked,omitempty"`  // what refuses it now
	Next       Phase         `json:"next"`
	Hash       string        `json:"hash"`

	Ends time.Time `json:"-"` // when the old version would end, if cut over now
}

// A ServicePlan says what a rotation does to one service.
type ServicePlan struct {
	Service     string        `json:"service"`
	Tasks       int           `json:"tasks"`
	Order       string        `json:"order"`
	Parallelism uint64        `json:"parallelism"`
	About       time.Duration `json:"about"` // how long a rolling update may take
}

// A Describer is a target that can say what a move would do to services. It reads only.
type Describer interface {
	Describe(context.Context, []Placement) ([]ServicePlan, error)
}

// A Warner is a target that knows what people should know before a move, and
// which is no reason not to make it. It reads only.
type Warner interface {
	Warnings(ctx context.Context, credential string) ([]string, error)
}

// A Namer is a target that knows the names of the objects a version will have.
type Namer interface {
	ObjectNames(Version) []string
}

// Plan says what the next rotation of a credential will do, or what an open one
// still will. A part that cannot be asked now is a blocker in the plan, not an error.
func (e *Engine) Plan(ctx context.Context, s *Standard) (Plan, error) {
	records, err := e.Journal.Records(ctx)
	if err != nil {
		return Plan{}, fmt.Errorf("reading the journal: %w", err)
	}
	ledger, err := Replay(records)
	if err != nil {
		return Plan{}, err
	}
	c := ledger.Credential(s.Name)
	p := Plan{Credential: s.Name, Overlap: s.Policy.Overlap, Next: Prepare, Ends: e.now().Add(s.Policy.Overlap)}
	next := s.planVersions(ctx, &p, c)
	if n, ok := s.Target.(Namer); ok {
		p.Creates = n.ObjectNames(next)
	}
	last := c.Last()
	for _, o := range last.Objects {
		p.Removes = append(p.Removes, o.Name)
	}
	slices.Sort(p.Removes)
	s.planServices(ctx, &p)
	p.Hash, err = p.hash()
	return p, err
}

func (s *Standard) planVersions(ctx context.Context, p *Plan, c Credential) Version {
	last := c.Last()
	p.From, p.Was = last.Number, last.Identity
	next := Version{Credential: c.Name, Number: c.Burnt + 1, State: Pending}
	if c.Open != nil {
		next = c.Next()
		p.Stands, p.Next = string(c.Open.Phase)+incomplete(c.Open), nextPhase(c.Open)
	} else {
		view := c.clone()
		view.Open = &Rotation{Phase: Prepare, From: last.Number, To: next.Number}
		view.set(next)
		if _, err := s.preflight(ctx, view); err != nil {
			p.Blocked = append(p.Blocked, wordsOf(err))
		}
		if v, err := s.Backend.Identify(ctx, next, c.Live()); err == nil {
			next = v
		} else {
			p.Blocked = append(p.Blocked, wordsOf(err))
		}
	}
	p.To, p.Becomes = next.Number, next.Identity
	return next
}

// wordsOf returns an error's text with its hint.
func wordsOf(err error) string {
	if hint := HintOf(err); hint != "" {
		return err.Error() + " (" + hint + ")"
	}
	return err.Error()
}

func (s *Standard) planServices(ctx context.Context, p *Plan) {
	reads := map[string]bool{}
	for _, place := range s.Placements {
		p.Mounts = place.Mounts
		for variable := range place.File {
			reads[variable] = true
		}
		for path := range place.Path {
			reads[path] = true
		}
	}
	for r := range reads {
		p.Reads = append(p.Reads, r)
	}
	slices.Sort(p.Reads)
	if d, ok := s.Target.(Describer); ok {
		services, err := d.Describe(ctx, s.Placements)
		if err != nil {
			p.Blocked = append(p.Blocked, wordsOf(err))
		}
		p.Services = services
	}
	if w, ok := s.Target.(Warner); ok {
		warnings, err := w.Warnings(ctx, s.Name)
		if err != nil {
			p.Blocked = append(p.Blocked, wordsOf(err))
		}
		p.Warnings = append(p.Warnings, warnings...)
	}
	p.Blocked = slices.Compact(p.Blocked)
}

// hash covers what somebody who approves the plan approves: which versions,
// which identities, which services, how.
func (p Plan) hash() (string, error) {
	p.Hash, p.Blocked, p.Warnings, p.Stands, p.Next = "", nil, nil, "", ""
	services := slices.Clone(p.Services)
	for i := range services {
		services[i].About = 0
	}
	p.Services = services
	b, err := json.Marshal(p)
	if err != nil {
		return "", errors.Join(errors.New("hashing the plan"), err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
