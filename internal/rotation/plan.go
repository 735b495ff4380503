package rotation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Plan says what the next rotation of a batch will do, or what an open one
// still will. Making it changes nothing. No time and no measurement goes into
// its hash, so that the same plan made later has the same one.
type Plan struct {
	Credentials []CredentialPlan `json:"credentials"` // by name
	Services    []ServicePlan    `json:"services,omitempty"`

	// Replaces says that the target replaces the tasks of services. One that
	// does not moves all of its readers at once, and restarts nothing.
	Replaces bool `json:"replaces_tasks"`

	Back    bool     `json:"back,omitempty"`    // it is the plan of a rollback
	Blocked []string `json:"blocked,omitempty"` // what refuses the phase now
	Hash    string   `json:"hash"`
}

// A CredentialPlan says what a rotation does to one credential of its batch.
type CredentialPlan struct {
	Credential string   `json:"credential"`
	From       int      `json:"from"` // 0: there is none yet
	To         int      `json:"to"`
	Was        string   `json:"was,omitempty"` // identities
	Becomes    string   `json:"becomes,omitempty"`
	Stands     string   `json:"stands,omitempty"` // where an open rotation stands
	Mounts     Mounts   `json:"mounts,omitempty"`
	Creates    []string `json:"creates,omitempty"` // names of objects
	Removes    []string `json:"removes,omitempty"`
	Reads      []string `json:"reads,omitempty"`    // what the applications must read
	Warnings   []string `json:"warnings,omitempty"` // worth knowing, in the way of nothing
	Blocked    []string `json:"blocked,omitempty"`  // what refuses it now
	Next       Phase    `json:"next"`
	Moved      bool     `json:"moved,omitempty"`   // services were moved by the open rotation
	Command    []string `json:"command,omitempty"` // what runs after a move, if anything does
	Gap        string   `json:"gap,omitempty"`     // what fails for a time at the cutover, which was accepted

	// Overwrites says that the target holds one version: the cutover puts the next one
	// over it, and there is no way back but forward.
	Overwrites bool `json:"overwrites,omitempty"`

	// Ways says what the phases do, where that is not as usual.
	Ways map[Phase][]Way `json:"ways,omitempty"`

	Noun string `json:"-"` // what the backend's versions are, such as "login"

	Public  map[string]string `json:"-"` // what the next version says in public
	Overlap time.Duration     `json:"-"` // written as overlap_ms
	Ends    time.Time         `json:"-"` // when the old version ends, or would if it were cut over now
}

// MarshalJSON writes the overlap in milliseconds.
func (p CredentialPlan) MarshalJSON() ([]byte, error) {
	type plain CredentialPlan
	return json.Marshal(struct {
		plain
		Overlap int64 `json:"overlap_ms"`
	}{plain(p), p.Overlap.Milliseconds()})
}

// A ServicePlan says what a rotation does to one service.
type ServicePlan struct {
	Service     string        `json:"service"`
	Tasks       int           `json:"tasks"`
	Order       string        `json:"order"`
	Parallelism uint64        `json:"parallelism"`
	Untold      bool          `json:"untold,omitempty"` // the target cannot say now
	About       time.Duration `json:"-"`                // how long a rolling update may take; written as about_ms
}

// MarshalJSON writes the estimate in milliseconds.
func (s ServicePlan) MarshalJSON() ([]byte, error) {
	type plain ServicePlan
	return json.Marshal(struct {
		plain
		About int64 `json:"about_ms"`
	}{plain(s), s.About.Milliseconds()})
}

// A Describer is a target that replaces the tasks of services, and can say what
// a move would do to them. It reads only. With an error it describes what it can.
type Describer interface {
	Describe(context.Context, []Placement) ([]ServicePlan, error)
}

// A Warner is a target or a backend that knows what people should know before a
// rotation, and which is no reason not to make it. It reads only.
type Warner interface {
	Warnings(ctx context.Context, credential string) ([]string, error)
}

// A Nouner is a backend whose versions are no logins, and says what they are, such as
// "deploy key".
type Nouner interface {
	Noun() string
}

// NounOf returns what the versions of a backend are: logins, unless it says otherwise.
func NounOf(b Backend) string {
	if n, ok := b.(Nouner); ok {
		return n.Noun()
	}
	return "login"
}

// A Namer is a target that knows the names of the objects a version will have.
type Namer interface {
	ObjectNames(Version) []string
}

// A Restarter is a target that runs a command after it moved a credential.
type Restarter interface {
	RestartCommand(credential string) []string // nil if there is none
}

// Plan says what the next rotation of a batch will do, or what an open one still
// will; with [Rollback], what the way back would. With a phase it says, too,
// whether that is refused now. A part that cannot be asked now is a blocker in
// the plan, not an error.
func (e *Engine) Plan(ctx context.Context, phase Phase, batch ...*Standard) (Plan, error) {
	s := &session{Engine: e, phase: phase, drafts: map[string]Version{}}
	batch = slices.SortedFunc(slices.Values(batch), func(a, b *Standard) int { return strings.Compare(a.Name, b.Name) })
	var places []Placement
	for _, p := range batch {
		s.procs = append(s.procs, p)
		places = append(places, p.Placements...)
	}
	if err := s.load(ctx); err != nil {
		return Plan{}, err
	}
	p := Plan{Back: phase == Rollback}
	if phase != "" {
		if err := s.gate(); err != nil {
			p.Blocked = append(p.Blocked, wordsOf(err))
		}
	}
	for _, proc := range batch {
		p.Credentials = append(p.Credentials, proc.plan(ctx, s.ledger.Credential(proc.Name), p.Back))
	}
	p.describe(ctx, batch, places)
	var err error
	p.Hash, err = p.hash()
	return p, err
}

func (s *Standard) plan(ctx context.Context, c Credential, back bool) CredentialPlan {
	last := c.Last()
	p := CredentialPlan{Credential: s.Name, From: last.Number, Was: last.Identity, Overlap: s.Policy.Overlap,
		Next: NextPhase(c), Ends: s.now().Add(s.Policy.Overlap)}
	if last.State == Previous {
		p.Ends = c.OverlapUntil
	}
	next := c.Next()
	if c.Open != nil {
		p.Stands = string(c.Open.Phase) + incomplete(c.Open)
		moved, _ := c.Open.happened(Move, c.Open.To)
		beside, _ := c.Open.happened(Beside, c.Open.To)
		p.Moved = moved || beside
	} else if !back {
		next = s.planNext(ctx, &p, c)
	}
	p.To, p.Becomes, p.Public = next.Number, next.Identity, next.Public
	if n, ok := s.Target.(Namer); ok && next.Number > 0 {
		p.Creates = n.ObjectNames(next)
	}
	if r, ok := s.Target.(Restarter); ok {
		p.Command = r.RestartCommand(s.Name)
	}
	p.Noun = NounOf(s.Backend)
	if own, ok := s.Backend.(Placed); ok {
		p.Ways = own.Ways()
	}
	p.Overwrites = s.Target.Traits().OneVersion
	for _, o := range last.Objects {
		if !p.Overwrites { // else what is there by that name is the next one's
			p.Removes = append(p.Removes, o.Name)
		}
	}
	slices.Sort(p.Removes)
	s.planReads(&p)
	s.warn(ctx, &p)
	p.Blocked, p.Warnings = once(p.Blocked), once(p.Warnings)
	return p
}

// planNext looks, as prepare would, at what is in the way of a next version.
func (s *Standard) planNext(ctx context.Context, p *CredentialPlan, c Credential) Version {
	next := Version{Credential: c.Name, Number: c.Burnt + 1, State: Pending}
	view := c.clone()
	view.Open = &Rotation{Phase: Prepare, From: p.From, To: next.Number}
	view.set(next)
	if _, err := s.preflight(ctx, view); err != nil {
		p.Blocked = append(p.Blocked, wordsOf(err))
	}
	v, err := s.Backend.Identify(ctx, next, c.Live())
	if err != nil {
		p.Blocked = append(p.Blocked, wordsOf(err))
		return next
	}
	return v
}

func (s *Standard) planReads(p *CredentialPlan) {
	for _, place := range s.Placements {
		p.Mounts = place.Mounts
		for variable := range place.File {
			p.Reads = append(p.Reads, variable)
		}
		for path := range place.Path {
			p.Reads = append(p.Reads, path)
		}
	}
	slices.Sort(p.Reads)
	p.Reads = slices.Compact(p.Reads)
}

// warn says what people should know: what target and backend say, and what the
// policy costs of the promise that services always have a version that works.
func (s *Standard) warn(ctx context.Context, p *CredentialPlan) {
	for _, part := range []any{s.Target, s.Backend} {
		w, ok := part.(Warner)
		if !ok {
			continue
		}
		warnings, err := w.Warnings(ctx, s.Name)
		if err != nil {
			p.Blocked = append(p.Blocked, wordsOf(err))
		}
		p.Warnings = append(p.Warnings, warnings...)
	}
	if s.Policy.Strict && p.From != 0 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("expiry: strict: services that still use version %d when its time runs out lose their login, "+
			"for its expiry is not put off", p.From))
	}
	if gap := s.Gap(); gap != "" && s.Policy.AcceptGap {
		p.Gap = gap
		p.Warnings = append(p.Warnings, "accept-gap: "+gap)
	}
}

// describe says what a move does to the services of the batch, each once.
func (p *Plan) describe(ctx context.Context, batch []*Standard, places []Placement) {
	if len(batch) == 0 {
		return
	}
	d, ok := batch[0].Target.(Describer)
	if p.Replaces = ok; !ok {
		return
	}
	told, err := d.Describe(ctx, places)
	if err != nil && !slices.ContainsFunc(p.Credentials, func(c CredentialPlan) bool { return slices.Contains(c.Blocked, wordsOf(err)) }) {
		p.Blocked = append(p.Blocked, wordsOf(err))
	}
	p.Services = told
	for _, place := range places {
		if !slices.ContainsFunc(p.Services, func(s ServicePlan) bool { return s.Service == place.Service }) {
			p.Services = append(p.Services, ServicePlan{Service: place.Service, Order: place.Rollout.Order,
				Parallelism: place.Rollout.Parallelism, Untold: true})
		}
	}
}

// wordsOf returns an error's text with its hint.
func wordsOf(err error) string {
	if hint := HintOf(err); hint != "" {
		return err.Error() + " (" + hint + ")"
	}
	return err.Error()
}

// once returns texts in their order, each once.
func once(texts []string) []string {
	var out []string
	for _, t := range texts {
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// hash covers what somebody who approves the plan approves: which versions,
// which identities, which services, how.
func (p Plan) hash() (string, error) {
	p.Hash, p.Blocked = "", nil
	p.Credentials = slices.Clone(p.Credentials)
	for i := range p.Credentials {
		c := &p.Credentials[i]
		c.Blocked, c.Warnings, c.Stands, c.Next, c.Moved = nil, nil, "", "", false
	}
	p.Services = slices.Clone(p.Services)
	for i := range p.Services {
		p.Services[i].About = 0
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("hashing the plan: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
