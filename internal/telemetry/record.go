package telemetry

import (
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A Watched is a credential of the configuration, as it stands now.
type Watched struct {
	rotation.Credential
	Due      time.Time // zero before its first success
	Approval bool      // its next phase waits for people
}

// phases are those of which every credential has counters, from 0 on.
var phases = []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover, rotation.Cleanup, rotation.Rollback}

// states are those that a version is in while it may be used.
var states = []rotation.State{rotation.Pending, rotation.Current, rotation.Previous}

// Record measures what the record says, of the credentials that are watched.
func Record(s *Set, records []rotation.Record, watched []Watched) {
	runs, born := rotation.History(records), births(records)
	for _, c := range watched {
		begin(s, c.Name)
		stands(s, c, born[c.Name])
		past(s, c.Name, runs)
	}
	if n := len(records); n > 0 {
		s.Set("keyturn_record_entries", "Entries of the record.", float64(n))
		s.SetTime("keyturn_record_last_entry_timestamp_seconds", "When the last entry of the record was made.", records[n-1].Time)
	}
}

// births are when versions came to be: credential → number → when.
func births(records []rotation.Record) map[string]map[int]time.Time {
	out := map[string]map[int]time.Time{}
	for _, r := range records {
		if r.Version == 0 || r.Phase != rotation.Prepare && r.Phase != rotation.Adopt {
			continue
		}
		if out[r.Credential] == nil {
			out[r.Credential] = map[int]time.Time{}
		}
		if _, known := out[r.Credential][r.Version]; !known {
			out[r.Credential][r.Version] = r.Time
		}
	}
	return out
}

// The names that are used in more than one place.
const (
	failures, failuresHelp         = "keyturn_phase_failures_total", "Runs of a phase that failed or were interrupted, also those that took everything back."
	rotations, rotationsHelp       = "keyturn_rotations_total", "Rotations that came to their end: done, or rolled_back."
	rollbacks, rollbacksHelp       = "keyturn_rollbacks_total", "Rotations that were taken back: automatic, or asked for by people."
	refused, refusedHelp           = "keyturn_failed_logins_total", "Logins that Keyturn tried from where the services are, which had to work and did not."
	replaced, replacedHelp         = "keyturn_tasks_replaced_total", "Tasks that moves replaced."
	shortfall, shortfallHelp       = "keyturn_unhealthy_task_seconds_total", "Seconds in which tasks were missing during moves, added up over the tasks."
	slowest, slowestHelp           = "keyturn_health_check_slowest_seconds", "From a task's start to healthy, of the slowest task of the last move."
	failing, failingHelp           = "keyturn_phase_failing", "1 if the last run of a phase failed, and none came out well since."
	took, tookHelp                 = "keyturn_phase_duration_seconds", "How long runs of a phase took, of those that had something to do."
	rotationTook, rotationTookHelp = "keyturn_rotation_duration_seconds", "How long the phases of a rotation took together, without the waits for people and the overlap."
)

// begin makes the counters of a credential, so that their first step up is seen.
func begin(s *Set, name string) {
	for _, p := range phases {
		s.Add(failures, failuresHelp, 0, "credential", name, "phase", string(p))
		s.Set(failing, failingHelp, 0, "credential", name, "phase", string(p))
	}
	for _, status := range []string{"done", "rolled_back"} {
		s.Add(rotations, rotationsHelp, 0, "credential", name, "status", status)
	}
	for _, why := range []string{"automatic", "asked"} {
		s.Add(rollbacks, rollbacksHelp, 0, "credential", name, "reason", why)
	}
	s.Add(refused, refusedHelp, 0, "credential", name)
}

// stands measures where a credential stands now.
func stands(s *Set, c Watched, born map[int]time.Time) {
	label := []string{"credential", c.Name}
	for _, state := range states {
		v, ok := c.In(state)
		if !ok {
			continue
		}
		with := append([]string{"state", string(state)}, label...)
		s.Set("keyturn_version", "The number of the version in a state.", float64(v.Number), with...)
		s.SetTime("keyturn_version_created_timestamp_seconds", "When the version in a state was made; of an adopted one, when it was adopted.", born[v.Number], with...)
	}
	s.SetTime("keyturn_last_success_timestamp_seconds", "When the last cutover, or the adoption, was done.", c.LastSuccess, label...)
	s.SetTime("keyturn_due_timestamp_seconds", "When the next rotation is due.", c.Due, label...)
	if _, overlaps := c.In(rotation.Previous); overlaps {
		s.SetTime("keyturn_overlap_end_timestamp_seconds", "Until when the previous version stays valid.", c.OverlapUntil, label...)
	}
	open := 0.0
	if c.Open != nil {
		open = 1
		s.SetTime("keyturn_rotation_open_since_timestamp_seconds", "When the rotation that is under way began.", born[c.Open.To], append([]string{"phase", string(c.Open.Phase)}, label...)...)
	}
	s.Set("keyturn_rotation_open", "1 while a rotation is under way.", open, label...)
	s.Set("keyturn_retirement_queue_length", "What could not be ended or removed yet.", float64(len(c.Queue)), label...)
	var oldest time.Time
	for _, p := range c.Queue {
		if oldest.IsZero() || p.Since.Before(oldest) {
			oldest = p.Since
		}
	}
	s.SetTime("keyturn_retirement_queue_oldest_timestamp_seconds", "Since when the oldest waits on the retirement queue.", oldest, label...)
	waiting := 0.0
	if c.Approval {
		waiting = 1
	}
	s.Set("keyturn_approvals_waiting", "1 while the next phase waits for people.", waiting, label...)
}

// past measures what became of a credential's runs.
func past(s *Set, name string, runs []rotation.PhaseRun) {
	inPhases := map[string]time.Duration{} // by rotation
	for _, r := range runs {
		if r.Credential != name || r.Ended.IsZero() {
			continue
		}
		label := []string{"credential", name, "phase", string(r.Phase)}
		if r.Status != rotation.RunIdle && r.Status != rotation.RunWaiting {
			s.Observe(took, tookHelp, r.Duration(), append([]string{"status", string(r.Status)}, label...)...)
		}
		switch r.Status {
		case rotation.RunFailed, rotation.RunRolledBack, rotation.RunInterrupted:
			s.Add(failures, failuresHelp, 1, label...)
			s.Set(failing, failingHelp, 1, label...)
		case rotation.RunDone, rotation.RunWaiting:
			s.Set(failing, failingHelp, 0, label...)
		}
		inPhases[r.Rotation] += r.Duration()
		steps(s, name, r)
		closed(s, name, r, inPhases[r.Rotation])
	}
}

// closed counts a rotation with the run that ended it.
func closed(s *Set, name string, r rotation.PhaseRun, all time.Duration) {
	back := r.Status == rotation.RunRolledBack || r.Phase == rotation.Rollback && r.Status == rotation.RunDone
	switch {
	case back:
		why := "asked"
		if r.Automatic || r.Phase != rotation.Rollback {
			why = "automatic"
		}
		s.Add(rollbacks, rollbacksHelp, 1, "credential", name, "reason", why)
		s.Add(rotations, rotationsHelp, 1, "credential", name, "status", "rolled_back")
		s.Observe(rotationTook, rotationTookHelp, all, "credential", name, "status", "rolled_back")
	case r.Phase == rotation.Cleanup && r.Status == rotation.RunDone:
		s.Add(rotations, rotationsHelp, 1, "credential", name, "status", "done")
		s.Observe(rotationTook, rotationTookHelp, all, "credential", name, "status", "done")
	}
}

// steps measures the moves and the tries of a run.
func steps(s *Set, name string, r rotation.PhaseRun) {
	for _, step := range r.Steps {
		if step.Name == "probe" && step.Status == rotation.RecordFailed {
			s.Add(refused, refusedHelp, 1, "credential", name)
		}
		for _, svc := range step.Services {
			label := []string{"credential", name, "service", svc.Service}
			s.Add(replaced, replacedHelp, float64(svc.Restarts), label...)
			s.Add(shortfall, shortfallHelp, float64(svc.ShortMillis)/1000, label...)
			if svc.Updated {
				s.Set(slowest, slowestHelp, float64(svc.SlowestHealth)/1000, label...)
			}
		}
	}
}
