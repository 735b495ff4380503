package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/journal"
	"github.com/keyturn/keyturn/internal/rotation"
)

// A Proof is what the journal says of the end of one version.
type Proof struct {
	Version  int
	Identity string               // the login that was ended
	Sessions int                  // of it that were left
	Refused  rotation.ProbeResult // of the last try with the old version
	Control  rotation.ProbeResult // of the try with the current one beside it
	Seq      int64                // of the entry
}

// Dead reports whether the old version was refused where the current one was accepted.
func (p Proof) Dead() bool {
	return p.Sessions == 0 && p.Refused.Answer == rotation.Dead && p.Control.Answer == rotation.Alive
}

// A Step is a step of Keyturn, as long as the journal says that it took.
type Step struct {
	Rotation, Phase, Name string
	Took                  time.Duration
}

// Record is what the journal says of all rotations.
type Record struct {
	Proofs []Proof
	Steps  []Step
}

// Journal reads and verifies the journal.
func (s *Scenario) Journal(ctx context.Context) (Record, error) {
	home, err := journal.Open(s.JournalPath(), journal.Options{})
	if err != nil {
		return Record{}, fmt.Errorf("reading the journal: %w", err)
	}
	entries, err := home.Read(ctx)
	if err != nil {
		return Record{}, fmt.Errorf("reading the journal: %w", err)
	}
	var r Record
	identities := map[int]string{}
	started := map[string]time.Time{}
	for _, e := range entries {
		if e.Identity != "" {
			identities[e.Version] = e.Identity
		}
		step := e.Phase + " " + e.Step
		if e.Status == string(rotation.RecordStarted) {
			started[step] = e.Time
		}
		if e.Status != string(rotation.RecordDone) {
			continue
		}
		took, ok, err := elapsed(e, started[step])
		if err != nil {
			return Record{}, fmt.Errorf("reading entry %d of the journal: %w", e.Seq, err)
		}
		if ok {
			r.Steps = append(r.Steps, Step{Rotation: e.Rotation, Phase: e.Phase, Name: e.Step, Took: took})
		}
		delete(started, step)
		if e.Step != "proof" {
			continue
		}
		p, err := proof(e)
		if err != nil {
			return Record{}, fmt.Errorf("reading the proof in entry %d of the journal: %w", e.Seq, err)
		}
		p.Identity = identities[p.Version]
		r.Proofs = append(r.Proofs, p)
	}
	return r, nil
}

// elapsed is how long a step took: what its entry says, or the time since the
// entry that it was begun with.
func elapsed(e journal.Entry, begun time.Time) (took time.Duration, ok bool, err error) {
	if text, said := e.Evidence["ms"]; said {
		var ms int64
		err := json.Unmarshal(text, &ms)
		return time.Duration(ms) * time.Millisecond, err == nil, err
	}
	return e.Time.Sub(begun), !begun.IsZero(), nil
}

func proof(e journal.Entry) (Proof, error) {
	p := Proof{Seq: e.Seq}
	for key, into := range map[string]any{"on": &p.Version, "sessions": &p.Sessions, "refused": &p.Refused, "control": &p.Control} {
		if err := json.Unmarshal(e.Evidence[key], into); err != nil {
			return p, fmt.Errorf("its %s: %w", key, err)
		}
	}
	return p, nil
}

// Reasons says how the server refused the old version, for every endpoint.
func (p Proof) Reasons() string {
	var out []string
	for _, e := range p.Refused.Endpoints {
		out = append(out, fmt.Sprintf("%s with %s", e.Endpoint, e.Code))
	}
	return strings.Join(out, ", ")
}
