package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keyturn/keyturn/internal/scenario"
)

// table prints both ways side by side, and the proofs.
func (d *demo) table() {
	all := append(slices.Clone(d.keyturn.rotations), d.script.rotations...)
	w := tabwriter.NewWriter(d.out, 0, 8, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cell func(scenario.Rotation) string) {
		fmt.Fprintf(w, "%-28s\t", name)
		for _, r := range all {
			fmt.Fprintf(w, "%s\t", cell(r))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\n%-28s\t", "")
	for i := range d.keyturn.rotations {
		fmt.Fprintf(w, "Keyturn %d\t", i+1)
	}
	for i := range d.script.rotations {
		fmt.Fprintf(w, "script %d\t", i+1)
	}
	fmt.Fprintln(w)
	for _, phase := range []string{"prepare", "validate", "cutover", "cleanup", "script"} {
		row("  "+phase, func(r scenario.Rotation) string { return took(r.Took(phase)) })
	}
	row("  logins tried", func(r scenario.Rotation) string { return number(r.Tried) })
	row("  logins per second", rate)
	row("  logins failed", func(r scenario.Rotation) string { return number(r.Failed) })
	row("  of all tried", func(r scenario.Rotation) string { return percent(r.Failed, r.Tried) })
	_ = w.Flush() // a closed stdout shows at the end
	for i, r := range d.keyturn.rotations {
		if r.Killed {
			d.sayf("  (cutover of Keyturn %d was killed and run again)", i+1)
		}
	}
	d.sayf("  (cleanup without its wait for the overlap)")
	d.ends()
}

// ends prints what is not per rotation.
func (d *demo) ends() {
	line := func(name, text string) { d.sayf("  %-26s  %s", name, text) }
	d.sayf("")
	line("whole life of the stacks", fmt.Sprintf("Keyturn %s tried, %s failed · script %s tried, %s failed",
		number(d.keyturn.total.Tried()), number(d.keyturn.total.Failed), number(d.script.total.Tried()), number(d.script.total.Failed)))
	line("longest without a login", fmt.Sprintf("Keyturn %s · script %s, for one task",
		d.keyturn.total.LongestOutage.Round(time.Millisecond), d.script.total.LongestOutage.Round(time.Millisecond)))
	line("restarts per task", fmt.Sprintf("Keyturn %s · script %s, in %d rotations", slots(d.keyturn.restarts), slots(d.script.restarts), rounds))
	for _, p := range d.record.Proofs {
		word := "NOT PROVEN DEAD"
		if p.Dead() {
			word = "refused"
		}
		line("old credential "+p.Identity, fmt.Sprintf("%s by %s; %d sessions left (entry %d)", word, p.Reasons(), p.Sessions, p.Seq))
	}
	for i, r := range d.keyturn.rotations {
		line(fmt.Sprintf("logging in after Keyturn %d", i+1), "the demo itself, with the old credentials: "+answers(r.Old))
	}
	line("audit verify", strings.TrimSpace(d.audit.Output))
}

// verdict is an error that names everything that was not as promised.
func (d *demo) verdict() error {
	var errs []error
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	k, s := d.keyturn.total, d.script.total
	expect(k.Failed == 0, "%d logins failed under Keyturn, and none may", k.Failed)
	expect(k.Tried() > 500 && k.Ended == k.Tasks, "Keyturn's load was not whole: %d logins, %d of %d tasks ended in peace", k.Tried(), k.Ended, k.Tasks)
	for slot, n := range d.keyturn.restarts {
		want := rounds * d.scene.Restarted()
		expect(n == want, "task %s was replaced %d times, and not %d times", slot, n, want)
	}
	expect(len(d.record.Proofs) == rounds, "%d proofs stand in the journal, and not %d", len(d.record.Proofs), rounds)
	for _, p := range d.record.Proofs {
		expect(p.Dead(), "version %d is not proven dead", p.Version)
	}
	for i, r := range d.keyturn.rotations {
		alive := slices.ContainsFunc(r.Old, func(a scenario.Answer) bool { return !a.Refused() })
		expect(len(r.Old) == i+1 && !alive, "after rotation %d the old credentials were not refused: %s", i+1, answers(r.Old))
	}
	expect(d.audit.Code == 0, "the journal is not whole")
	for i, r := range d.script.rotations {
		expect(4*r.Failed >= r.Tried, "script %d broke %s of its logins, less than a quarter: the load is no fair witness (%d of %d in all)",
			i+1, percent(r.Failed, r.Tried), s.Failed, s.Tried())
	}
	if len(errs) > 0 {
		return fmt.Errorf("not as promised: %w", errors.Join(errs...))
	}
	d.sayf("\nTwo rotations under load and no failed login: as promised.")
	return nil
}

func took(d time.Duration) string {
	if d == 0 {
		return "·"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// number writes a count with its thousands parted.
func number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func percent(part, whole int) string {
	if whole == 0 {
		return "·"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(whole))
}

func rate(r scenario.Rotation) string {
	if r.Lasted == 0 {
		return "·"
	}
	return fmt.Sprintf("%.0f", float64(r.Tried)/r.Lasted.Seconds())
}

// slots writes the restarts of each task, in the order of the slots.
func slots(restarts map[string]int) string {
	var out []string
	for _, slot := range slices.Sorted(maps.Keys(restarts)) {
		out = append(out, strconv.Itoa(restarts[slot]))
	}
	return strings.Join(out, ", ")
}

// answers writes what PostgreSQL said to each login.
func answers(all []scenario.Answer) string {
	var out []string
	for _, a := range all {
		out = append(out, a.Login+" "+a.Code)
	}
	return strings.Join(out, ", ")
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
