package rotation

import (
	"encoding/json"
	"time"
)

// A PhaseRun is one run of a phase for one credential, as the record tells it: from the
// moment when its lease was taken to when it was given back.
type PhaseRun struct {
	Credential string
	Rotation   string // "" if none was open or begun
	Phase      Phase
	Run        string // of the process
	Begun      time.Time
	Ended      time.Time // zero while it is under way
	Status     RunStatus
	Automatic  bool // something was taken back that nobody asked to have back
	Steps      []StepRun
}

// RunStatus says how a run of a phase came out.
type RunStatus string

// How runs come out.
const (
	RunIdle        RunStatus = ""            // there was nothing to do, or it could not begin
	RunDone        RunStatus = "done"        // the phase is complete; of a rollback: the services are back
	RunWaiting     RunStatus = "waiting"     // for time
	RunFailed      RunStatus = "failed"      // and what it had begun stands
	RunRolledBack  RunStatus = "rolled_back" // it failed, and everything was taken back
	RunInterrupted RunStatus = "interrupted" // the process ended, or lost its lease
)

// A StepRun is one step of a run, as often as it was tried.
type StepRun struct {
	Name     string
	Phase    Phase // that it belongs to: a run may take back what another did
	Version  int
	Begun    time.Time
	Ended    time.Time // zero if its end is not on the record
	Status   RecordStatus
	Services []ServiceReport // of a move
}

// Duration is how long a run took; of one that is under way it is zero.
func (run PhaseRun) Duration() time.Duration {
	if run.Ended.IsZero() {
		return 0
	}
	return run.Ended.Sub(run.Begun)
}

// History returns the runs that records tell of, in the order in which they began. It
// believes the records: [Replay] is what judges them.
func History(records []Record) []PhaseRun {
	h := history{at: map[string]int{}}
	for _, r := range records {
		if r.Credential != "" {
			h.take(r)
		}
	}
	return h.runs
}

type history struct {
	runs []PhaseRun
	at   map[string]int // credential → its run that is under way
}

func (h *history) take(r Record) {
	i, under := h.at[r.Credential]
	switch {
	case r.Step == stepLease:
		if under {
			h.interrupted(i)
		}
		var holder Holder
		r.read(keyHolder, &holder)
		h.at[r.Credential] = len(h.runs)
		h.runs = append(h.runs, PhaseRun{Credential: r.Credential, Phase: holder.Phase, Run: holder.Run, Begun: r.Time})
		return
	case !under:
		return
	}
	run := &h.runs[i]
	if r.Rotation != "" {
		run.Rotation = r.Rotation
	}
	switch {
	case r.Step == stepRelease:
		run.Ended = r.Time
		delete(h.at, r.Credential)
	case r.Step == stepPhase:
		run.came(r)
	case r.Step == stepAdopt && r.Status == RecordDone, r.Step == stepEnded:
		run.Status = RunDone
	case r.Status != RecordNote:
		run.step(r)
	}
}

// interrupted ends a run that never gave its lease back: with what it did last.
func (h *history) interrupted(i int) {
	run := &h.runs[i]
	run.Ended = run.Begun
	for _, s := range run.Steps {
		for _, t := range []time.Time{s.Begun, s.Ended} {
			if t.After(run.Ended) {
				run.Ended = t
			}
		}
	}
	if run.Status == RunIdle {
		run.Status = RunInterrupted
	}
}

// came takes what a record says of a phase as a whole.
func (run *PhaseRun) came(r Record) {
	switch r.Status {
	case RecordIntent:
		_, found := r.Evidence[keyCause]
		run.Automatic = run.Automatic || r.Phase == Rollback && found
	case RecordDone:
		run.Status = RunDone
	case RecordWaiting:
		run.Status = RunWaiting
	case RecordFailed:
		run.Status = RunFailed
	case RecordUndone:
		run.Status = RunRolledBack
		if run.Phase == Rollback {
			run.Status = RunDone
		}
	}
}

// step takes what a record says of a step. One without effect has no beginning on the
// record, but how long it took.
func (run *PhaseRun) step(r Record) {
	if r.Status == RecordStarted || r.Status == RecordUndoing {
		run.Steps = append(run.Steps, StepRun{Name: r.Step, Phase: r.Phase, Version: r.Version, Begun: r.Time, Status: r.Status})
		return
	}
	if r.Status == RecordFailed && run.Status == RunIdle {
		run.Status = RunFailed
	}
	s := StepRun{Name: r.Step, Phase: r.Phase, Version: r.Version, Begun: r.Time, Ended: r.Time, Status: r.Status}
	var ms int64
	if r.read("ms", &ms) {
		s.Begun = r.Time.Add(-time.Duration(ms) * time.Millisecond)
	}
	_ = json.Unmarshal(r.Evidence["services"], &s.Services)
	for i := len(run.Steps) - 1; i >= 0; i-- {
		if b := run.Steps[i]; b.Name == s.Name && b.Phase == s.Phase && b.Ended.IsZero() {
			s.Begun = b.Begun
			run.Steps[i] = s
			return
		}
	}
	run.Steps = append(run.Steps, s)
}
