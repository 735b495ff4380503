package testserver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/testserver/outcome"
)

// An Outcome is one login that the load application tried.
type Outcome = outcome.Login

// Totals sums what every task of a load has seen.
type Totals struct {
	// Tasks have tried at least one login; Ended of them were stopped and
	// said so, the others run or were killed.
	Tasks, Ended int
	// OK and Failed count logins.
	OK, Failed int
	// ByCode counts the failed logins by their code, BySession the others by
	// their session user.
	ByCode, BySession map[string]int
	// First and Last are when the first and the last login began.
	First, Last time.Time
	// LongestOutage is the longest time that one task went without a good
	// login while logins failed. The time until the task's first good login counts,
	// and that from its last one to the end.
	LongestOutage time.Duration
	// LongestSilence is the longest time between two good logins of any tasks.
	LongestSilence time.Duration
	// Failures are the first failed logins, twenty at most.
	Failures []Outcome
}

// Tried is the number of logins.
func (t Totals) Tried() int { return t.OK + t.Failed }

// ReadLoad sums the files that the tasks of a load have written to the folder
// LOAD_DIR so far. It may be called while they run.
func ReadLoad(dir string) (Totals, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return Totals{}, fmt.Errorf("reading the load's outcomes: %w", err)
	}
	t := Totals{ByCode: map[string]int{}, BySession: map[string]int{}}
	var good []time.Time
	for _, file := range files {
		outcomes, ended, err := readTask(file)
		if err != nil {
			return Totals{}, fmt.Errorf("reading the load's outcomes: %w", err)
		}
		if ended {
			t.Ended++
		}
		if len(outcomes) > 0 {
			t.Tasks++
		}
		good = append(good, t.add(outcomes)...)
	}
	slices.SortFunc(good, time.Time.Compare)
	for i := 1; i < len(good); i++ {
		t.LongestSilence = max(t.LongestSilence, good[i].Sub(good[i-1]))
	}
	slices.SortFunc(t.Failures, func(a, b Outcome) int { return a.Time.Compare(b.Time) })
	t.Failures = t.Failures[:min(len(t.Failures), 20)]
	return t, nil
}

// add sums the outcomes of one task and returns the times of the good ones.
func (t *Totals) add(outcomes []Outcome) []time.Time {
	var good []time.Time
	var down time.Time // since when the task has had no good login; zero while it has
	for i, o := range outcomes {
		if t.First.IsZero() || o.Time.Before(t.First) {
			t.First = o.Time
		}
		if o.Time.After(t.Last) {
			t.Last = o.Time
		}
		if !o.OK {
			t.Failed++
			t.ByCode[o.Code]++
			t.Failures = append(t.Failures, o)
			if down.IsZero() {
				down = o.Time
				if i > 0 {
					down = outcomes[i-1].Time
				}
			}
			t.LongestOutage = max(t.LongestOutage, o.Time.Sub(down))
			continue
		}
		t.OK++
		t.BySession[o.Session]++
		good = append(good, o.Time)
		if !down.IsZero() {
			t.LongestOutage = max(t.LongestOutage, o.Time.Sub(down))
			down = time.Time{}
		}
	}
	return good
}

// readTask reads one task's file. A last line without its end is a write that
// is still under way, or was cut off by a kill: it is left out.
func readTask(file string) (outcomes []Outcome, ended bool, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, false, err
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		var final outcome.Final
		if err := json.Unmarshal(lines.Bytes(), &final); err == nil && final.Final {
			ended = true
			continue
		}
		var o Outcome
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return nil, false, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		if o.Time.IsZero() {
			return nil, false, fmt.Errorf("%s:%d: %w", file, n, errors.New("no time"))
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, ended, lines.Err()
}
