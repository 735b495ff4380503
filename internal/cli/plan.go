package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
)

func (a *app) planCommand() *cobra.Command {
	var f phaseFlags
	var full bool
	cmd := &cobra.Command{
		Use: "plan [CREDENTIAL…]", Short: "Say what the next rotation will do; changes nothing",
		RunE: func(cmd *cobra.Command, names []string) error {
			if full {
				return a.configFull(names, f)
			}
			return a.plan(cmd.Context(), names, f, anyPhase)
		},
	}
	cmd.Flags().BoolVar(&full, "config-full", false, "print the configuration with every default instead; asks nothing but the file")
	cmd.Flags().BoolVar(&f.due, "due", false, "only credentials that are due")
	return cmd
}

// plan prints what would be done. Something in the way of it is part of the
// plan, and the exit code says so.
func (a *app) plan(ctx context.Context, names []string, f phaseFlags, phase rotation.Phase) error {
	w, err := a.wire(ctx, f, true)
	if err != nil {
		return err
	}
	defer w.close()
	all := len(names) == 0 && !f.due && phase == anyPhase
	if all {
		names = namesOf(w.cfg)
	}
	groups, err := a.groups(ctx, w, names, f.due, phase)
	if err != nil {
		return err
	}
	ledger, err := w.ledger(ctx)
	if err != nil {
		return err
	}
	plans, failed := w.plans(ctx, ledger, groups, phase)
	var lost []string
	if all || f.due {
		lost = strays(w.cfg, ledger)
	}
	if f.due {
		w.measure()
	}
	if w.note != "" {
		a.notef("%s", w.note)
	}
	a.printPlans(plans, lost, w.planned(ledger, plans))
	a.ways(ctx, w, plans)
	if failed != nil {
		return failed
	}
	if slices.ContainsFunc(plans, blocked) {
		return exitStatus(exitRefused)
	}
	return nil
}

// plans makes the plan of every group that can have one.
func (w *wiring) plans(ctx context.Context, ledger *rotation.Ledger, groups [][]string, phase rotation.Phase) ([]rotation.Plan, error) {
	plans := []rotation.Plan{}
	var failed []error
	for _, group := range groups {
		batch, err := w.standards(group)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		p, err := w.engine.Plan(ctx, phase, batch...)
		if err != nil {
			return nil, err // of the journal
		}
		if phase == anyPhase || phase == rotation.Prepare {
			p.Blocked = append(p.Blocked, w.ahead(ledger, group)...)
		}
		plans = append(plans, p)
	}
	return plans, errors.Join(failed...)
}

func blocked(p rotation.Plan) bool {
	return len(p.Blocked) > 0 || slices.ContainsFunc(p.Credentials, func(c rotation.CredentialPlan) bool { return len(c.Blocked) > 0 })
}

// planned compares the stack files with what services will read after the plans.
func (w *wiring) planned(ledger *rotation.Ledger, plans []rotation.Plan) []sheet {
	var all []deployed
	for _, p := range plans {
		for _, c := range p.Credentials {
			now := ledger.Credential(c.Credential)
			if c.From == 0 {
				continue // what services read before it, nobody knows
			}
			v := rotation.Version{Credential: c.Credential, Number: c.To, Public: c.Public}
			if made, ok := now.Version(c.To); ok {
				v = made
			}
			if p.Back {
				v = now.Last()
			}
			if i := slices.IndexFunc(w.cfg.Credentials, func(of config.Credential) bool { return of.Name == c.Credential }); i >= 0 && v.Number > 0 {
				all = append(all, deployed{w.cfg.Credentials[i], v, now.Versions})
			}
		}
	}
	return sheets(all)
}

func (a *app) printPlans(plans []rotation.Plan, lost []string, files []sheet) {
	a.planned = plans
	if a.output == "json" {
		doc := map[string]any{"plans": plans}
		if len(lost) > 0 {
			doc["not_in_configuration"] = lost
		}
		if len(files) > 0 {
			doc["stack_files"] = files
		}
		a.json(doc)
		return
	}
	if len(plans) == 0 {
		a.printf("nothing is due\n")
	}
	for _, p := range plans {
		printPlan(a.Stdout, p)
	}
	for _, name := range lost {
		a.printf("%s: on the record, and not in the configuration; see: keyturn status %s\n", name, name)
	}
	printSheets(a.Stdout, "once that is done it must say", files)
}

func printPlan(w io.Writer, p rotation.Plan) {
	for _, c := range p.Credentials {
		printTitle(w, p, c)
	}
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	if p.Back {
		printBack(tw, p)
	} else {
		printForward(tw, p)
	}
	_ = tw.Flush() // the writer keeps its error
	var warnings, refusals []string
	for _, c := range p.Credentials {
		if !p.Back && ahead(rotation.Cutover, c) {
			printReads(w, p, c)
		}
		warnings, refusals = append(warnings, c.Warnings...), append(refusals, c.Blocked...)
	}
	for _, s := range p.Services {
		if s.Order == "stop-first" && s.Tasks == 1 {
			warnings = append(warnings, fmt.Sprintf("service %q has one task and order: stop-first: nobody answers until the new one is healthy", s.Service))
		}
	}
	printOnce(w, "warning", warnings)
	printOnce(w, "refused now", append(refusals, p.Blocked...))
	fmt.Fprintf(w, "  plan %s\n", p.Hash)
}

// printOnce prints lines that are led in, each once.
func printOnce(w io.Writer, lead string, lines []string) {
	for i, line := range lines {
		if !slices.Contains(lines[:i], line) {
			fmt.Fprintf(w, "  %s: %s\n", lead, strings.ReplaceAll(line, "\n", "\n    "))
		}
	}
}

// printTitle says which version comes after which, and where the rotation stands.
func printTitle(w io.Writer, p rotation.Plan, c rotation.CredentialPlan) {
	if c.To == 0 {
		fmt.Fprintf(w, "%s: no rotation is open\n", c.Credential)
		return
	}
	from, to := number(c.From), number(c.To)
	was, becomes := or(c.Was, "none"), c.Becomes
	if p.Back {
		from, to, was, becomes = to, from, or(becomes, "none"), was
	}
	fmt.Fprintf(w, "%s %s → %s", c.Credential, from, to)
	switch {
	case oneLogin(c):
		fmt.Fprintf(w, "   another password of login %s", becomes)
	case becomes != "":
		fmt.Fprintf(w, "   %s %s → %s", c.Noun, was, becomes)
	}
	switch {
	case c.From == 0 || p.Back || c.Ways != nil && c.Overlap == 0:
	case oneLogin(c):
		fmt.Fprintf(w, "   overlap %s, the old one is kept for a way back until %s", config.FormatDuration(c.Overlap), clock(c.Ends))
	default:
		fmt.Fprintf(w, "   overlap %s, the old one ends %s", config.FormatDuration(c.Overlap), clock(c.Ends))
	}
	fmt.Fprintln(w)
	if c.Stands != "" {
		fmt.Fprintf(w, "  a rotation is open at %s; next: %s\n", c.Stands, nextCommand(c.Next, c.Credential))
	}
}

// oneLogin reports whether both versions are the same login, which has one of
// their passwords at a time.
func oneLogin(c rotation.CredentialPlan) bool {
	return c.Gap != "" && c.Was == c.Becomes && c.Was != ""
}

// subject names what arming and ending are about: a login, or a password of one.
func subject(c rotation.CredentialPlan, login, which string) string {
	if oneLogin(c) {
		return "the " + which + " password of login " + login + ", its sessions"
	}
	if c.Noun != "login" {
		return c.Noun + " " + login
	}
	return "login " + login + ", its sessions"
}

// printChanges says where a login gets another password right before the move.
func printChanges(w io.Writer, phase, which string, p rotation.Plan) {
	for _, c := range p.Credentials {
		if oneLogin(c) && (p.Back || ahead(rotation.Cutover, c)) {
			fmt.Fprintf(w, "  %s\tlogin %s gets %s password\ta gap, until the next line is done\n", phase, c.Was, which)
		}
	}
}

// printOverwrites says what the cutover overwrites.
func printOverwrites(w io.Writer, p rotation.Plan) {
	for _, c := range p.Credentials {
		if c.Overwrites && ahead(rotation.Cutover, c) {
			fmt.Fprintf(w, "  cutover\toverwrite %s, then arm %s\ta gap between the two, and no way back\n", listed(c.Creates), or(c.Becomes, "a "+c.Noun))
		}
	}
}

func number(version int) string {
	if version == 0 {
		return "none"
	}
	return fmt.Sprint(version)
}

// nextCommand is what goes on with a credential's rotation.
func nextCommand(next rotation.Phase, credential string) string {
	if next == rotation.Rollback {
		return fmt.Sprintf("keyturn rollback --reason 'go on with it' %s", credential)
	}
	return fmt.Sprintf("keyturn %s %s", next, credential)
}

// ahead reports whether a phase is still to come for a credential.
func ahead(phase rotation.Phase, c rotation.CredentialPlan) bool {
	order := []rotation.Phase{rotation.Prepare, rotation.Validate, rotation.Cutover, rotation.Cleanup}
	return slices.Index(order, c.Next) >= 0 && slices.Index(order, c.Next) <= slices.Index(order, phase)
}

// printForward prints what is still ahead, by phase.
func printForward(w io.Writer, p rotation.Plan) {
	what := "files"
	if p.Replaces {
		what = "secret"
	}
	for _, c := range p.Credentials {
		if printWay(w, rotation.Prepare, c) {
			continue
		}
		if ahead(rotation.Prepare, c) {
			arms := "arm " + or(c.Becomes, "a "+c.Noun)
			if c.Overwrites {
				fmt.Fprintf(w, "  prepare\tlooks, and puts nothing anywhere yet\trestarts nothing\n")
				continue
			}
			if oneLogin(c) {
				arms = "stage a password of login " + c.Becomes
			}
			fmt.Fprintf(w, "  prepare\t+ %s %s · %s\t%s\n", what, listed(c.Creates), arms, restarts(p, c.Mounts == rotation.Dual))
		}
	}
	if slices.ContainsFunc(p.Credentials, func(c rotation.CredentialPlan) bool { return ahead(rotation.Cutover, c) }) {
		printChanges(w, "cutover", "its next", p)
		printOverwrites(w, p)
		for _, c := range p.Credentials {
			printWay(w, rotation.Cutover, c)
		}
		printMoves(w, "cutover", p)
	}
	effect := "restarts nothing"
	if p.Replaces {
		effect = "an empty update per service, restarts nothing"
	}
	for _, c := range p.Credentials {
		if c.From != 0 && printWay(w, rotation.Cleanup, c) {
			continue
		}
		if c.From != 0 && ahead(rotation.Cleanup, c) {
			removes := ""
			if !c.Overwrites {
				removes = " · remove " + listed(c.Removes)
			}
			fmt.Fprintf(w, "  cleanup\tend %s%s\t%s\n", subject(c, c.Was, "old"), removes, effect)
		}
	}
}

// printWay prints what a phase does that goes a way of its own, if it is still ahead, and
// reports whether it goes one.
func printWay(w io.Writer, phase rotation.Phase, c rotation.CredentialPlan) bool {
	for _, way := range c.Ways[phase] {
		if ahead(phase, c) {
			fmt.Fprintf(w, "  %s\t%s\t%s\n", phase, way.Does, way.Effect)
		}
	}
	return c.Ways != nil
}

// printBack prints what a rollback does.
func printBack(w io.Writer, p rotation.Plan) {
	for _, c := range p.Credentials {
		for _, way := range c.Ways[rotation.Rollback] {
			if c.To != 0 {
				fmt.Fprintf(w, "  rollback\t%s\t%s\n", way.Does, way.Effect)
			}
		}
	}
	p.Credentials = slices.DeleteFunc(slices.Clone(p.Credentials), func(c rotation.CredentialPlan) bool { return c.Ways != nil })
	switch {
	case slices.ContainsFunc(p.Credentials, func(c rotation.CredentialPlan) bool { return c.Moved }):
		printChanges(w, "rollback", "its old", p)
		printMoves(w, "rollback", p)
	case slices.ContainsFunc(p.Credentials, func(c rotation.CredentialPlan) bool { return c.To != 0 }):
		fmt.Fprintf(w, "  rollback\tno service was moved\trestarts nothing\n")
	}
	for _, c := range p.Credentials {
		if c.To != 0 {
			fmt.Fprintf(w, "  rollback\tend %s · remove %s\trestarts nothing\n", subject(c, or(c.Becomes, "none"), "next"), listed(c.Creates))
		}
	}
}

// printMoves says what a move does to the services, each once.
func printMoves(w io.Writer, phase string, p rotation.Plan) {
	if !p.Replaces && !slices.ContainsFunc(p.Credentials, func(c rotation.CredentialPlan) bool { return c.Overwrites || c.Ways != nil }) {
		printMove(w, phase, p)
	}
	for _, s := range p.Services {
		if s.Untold {
			fmt.Fprintf(w, "  %s\t%s: cannot be told now\tone rolling update\n", phase, s.Service)
			continue
		}
		fmt.Fprintf(w, "  %s\t%s %d tasks, %s, %s, about %s\tone rolling update\n", phase, s.Service, s.Tasks, s.Order, atOnce(s.Parallelism), s.About.Round(time.Second))
	}
}

// printMove prints the move of a target that replaces no tasks, and what it
// runs then, once for all credentials that name the same command.
func printMove(w io.Writer, phase string, p rotation.Plan) {
	var commands []string
	for _, c := range p.Credentials {
		if text := strings.Join(c.Command, " "); text != "" && !slices.Contains(commands, text) {
			commands = append(commands, text)
		}
	}
	if len(commands) == 0 {
		fmt.Fprintf(w, "  %s\tone atomic move\trestarts nothing\n", phase)
		return
	}
	fmt.Fprintf(w, "  %s\tone atomic move, then run: %s\trestarts what that restarts\n", phase, strings.Join(commands, "; "))
}

func printReads(w io.Writer, p rotation.Plan, c rotation.CredentialPlan) {
	switch {
	case len(c.Reads) > 0 && len(c.Command) > 0:
	case len(c.Reads) > 0 && !p.Replaces:
		fmt.Fprintf(w, "  the application must read %s again when they change, or be restarted\n", strings.Join(c.Reads, ", "))
	case len(c.Reads) > 0 && c.Mounts == rotation.Switch:
		fmt.Fprintf(w, "  the application must read %s at start\n", strings.Join(c.Reads, ", "))
	}
	if c.Mounts == rotation.Dual {
		fmt.Fprintf(w, "  the application must fall back to the …_NEW credential by itself\n")
	}
}

// listed returns names in a line, those in one directory by what they share.
func listed(names []string) string {
	if len(names) < 2 || path.Dir(names[0]) == "." {
		return strings.Join(names, ", ")
	}
	dir := path.Dir(names[0])
	var files []string
	for _, n := range names {
		if path.Dir(n) != dir {
			return strings.Join(names, ", ")
		}
		files = append(files, path.Base(n))
	}
	return fmt.Sprintf("%s/{%s}", dir, strings.Join(files, ","))
}

func restarts(p rotation.Plan, dual bool) string {
	switch {
	case dual && p.Replaces && len(p.Services) == 1:
		return "one rolling update of a service; so is its way back"
	case dual && p.Replaces:
		return fmt.Sprintf("one rolling update of %d services; so is its way back", len(p.Services))
	}
	return "restarts nothing"
}

func atOnce(parallelism uint64) string {
	switch parallelism {
	case 0:
		return "all at once"
	case 1:
		return "one at a time"
	}
	return fmt.Sprintf("%d at a time", parallelism)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
