package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// A printer keeps the first error of writing: what a run prints is told to
// nobody if it is lost, and so the run has failed.
type printer struct {
	w   io.Writer
	err error
}

// Write implements [io.Writer]. After an error nothing more is written.
func (p *printer) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.w.Write(b)
	p.err = err
	return n, err
}

func (a *app) json(v any) {
	enc := json.NewEncoder(a.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil && a.out.err == nil {
		a.out.err = err
	}
}

func (a *app) printf(format string, args ...any) {
	fmt.Fprintf(a.Stdout, format, args...)
}

// notef tells something on stderr that is no failure.
func (a *app) notef(format string, args ...any) {
	a.progress.clear()
	if a.step != nil {
		a.step.Notice("keyturn", fmt.Sprintf(format, args...))
		return
	}
	fmt.Fprintf(a.Stderr, "note: "+format+"\n", args...)
}

// nothing says that there was nothing to do.
func (a *app) nothing(why string) {
	if a.output == "json" {
		a.json(map[string]any{"phases": []any{}, "notes": []string{why}})
		return
	}
	a.printf("%s\n", why)
}

// progress tells of steps as they happen: on a terminal the step in hand is
// rewritten in place, elsewhere every step that ended is a line.
type progress struct {
	w        io.Writer
	terminal bool
	open     bool // a line without its end stands on the terminal
}

// watch shows an event and keeps it for the summary of a step.
func (a *app) watch(ev rotation.Event) {
	if a.step != nil {
		a.events = append(a.events, ev)
	}
	a.progress.show(ev)
}

func (p *progress) show(ev rotation.Event) {
	name := fmt.Sprintf("%s %s", ev.Credential, ev.Phase)
	if ev.Version != 0 {
		name = fmt.Sprintf("%s v%d %s", ev.Credential, ev.Version, ev.Phase)
	}
	switch ev.Status {
	case rotation.RecordStarted, rotation.RecordUndoing:
		if p.terminal {
			p.clear()
			fmt.Fprintf(p.w, "  %s  %s …", name, stepWords(ev))
			p.open = true
		}
		return
	}
	p.clear()
	line := fmt.Sprintf("  %s  %s", name, stepWords(ev))
	if ev.Status != rotation.RecordDone {
		line += "  " + string(ev.Status)
	}
	if ev.Elapsed >= 100*time.Millisecond {
		line += fmt.Sprintf("  %.1f s", ev.Elapsed.Seconds())
	}
	if ev.Text != "" {
		line += ": " + ev.Text
	}
	fmt.Fprintln(p.w, line)
}

func stepWords(ev rotation.Event) string {
	if ev.Status == rotation.RecordUndoing || ev.Status == rotation.RecordUndone {
		return "undo " + ev.Step
	}
	return ev.Step
}

func (p *progress) clear() {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
}

// printSummary says what a phase came to. As JSON, all phases of a run stand in
// one document, which is written when the run is over.
func (a *app) printSummary(sum rotation.Summary) {
	a.phases = append(a.phases, sum)
	if a.output == "json" {
		return
	}
	for _, note := range sum.Notes {
		a.printf("note: %s\n", note)
	}
	for _, svc := range sum.Services {
		a.printf("%s: %s\n", svc.Service, serviceWords(svc))
	}
	a.printf("%s %s in %s", sum.Phase, sum.Outcome, seconds(sum.Millis))
	if sum.For != "" {
		a.printf(": %s", waitWords(sum))
	}
	a.printf("\n")
	for _, pos := range sum.Credentials {
		a.printf("  %s\n", positionWords(pos))
	}
	if sum.Hint != "" {
		a.printf("hint: %s\n", sum.Hint)
	}
}

// waitWords says what a phase waits for, and until when.
func waitWords(sum rotation.Summary) string {
	if sum.Until.IsZero() {
		return sum.For
	}
	return sum.For + " until " + clock(sum.Until)
}

func serviceWords(r rotation.ServiceReport) string {
	if r.Updated && r.Tasks == 0 && r.Restarts == 0 {
		return "reads it from now on"
	}
	if !r.Updated {
		return fmt.Sprintf("%d tasks, on it already", r.Tasks)
	}
	text := fmt.Sprintf("%d tasks, %d replaced, %s", r.Tasks, r.Restarts, seconds(r.Millis))
	if r.SlowestHealth > 0 {
		text += fmt.Sprintf(", slowest healthy after %s", seconds(r.SlowestHealth))
	}
	if r.Unhealthy != "" {
		text += ", unhealthy: " + r.Unhealthy
	}
	return text
}

func positionWords(p rotation.Position) string {
	var parts []string
	add := func(n int, state string) {
		if n != 0 {
			parts = append(parts, fmt.Sprintf("v%d %s", n, state))
		}
	}
	add(p.Current, "current")
	add(p.Pending, "pending")
	add(p.Previous, "previous")
	if p.Previous != 0 && !p.Until.IsZero() {
		parts[len(parts)-1] += " until " + clock(p.Until)
	}
	if p.Queue > 0 {
		parts = append(parts, fmt.Sprintf("%d in the retirement queue", p.Queue))
	}
	if len(parts) == 0 {
		parts = []string{"no version yet"}
	}
	return p.Name + ": " + strings.Join(parts, ", ")
}

func seconds(ms int64) string { return fmt.Sprintf("%.1f s", float64(ms)/1000) }

// clock writes a time as the plan does: weekday, date and minute, UTC.
func clock(t time.Time) string { return t.UTC().Format("Mon 2006-01-02 15:04 UTC") }
