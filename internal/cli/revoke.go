package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/notify"
	"github.com/keyturn/keyturn/internal/rotation"
)

// The ways to revoke.
const (
	fast      = "fast"      // the new version first, the old one at once after it: no outage
	immediate = "immediate" // the old one first: services fail until they have the new one
)

// revokeFlags are what revoke can be told.
type revokeFlags struct {
	mode     string
	reason   string
	ticket   string
	all      bool
	backends []string
	services []string
	labels   []string // of services of the Swarm: KEY or KEY=VALUE
	atOnce   int
	dryRun   bool
}

func (a *app) revokeCommand() *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use: "revoke --reason REASON CREDENTIAL…", Short: "Replace what was stolen, and end it now",
		Long: `Revoke replaces credentials without waiting for anything, and proves the old ones dead.

  --mode fast        the new version first, the old one right after it: nothing fails
  --mode immediate   the old one first: services fail until they have the new one

Without an answer from one, the others go on; what is still alive is named, exit 4.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			switch {
			case f.mode != fast && f.mode != immediate:
				return usagef("write --mode fast or --mode immediate", "unknown mode %q", f.mode)
			case blank(f.reason):
				return usagef("say why: it stands in the record", "revoke needs --reason")
			case f.atOnce < 1:
				return usagef("give it 1 or more", "--at-once %d", f.atOnce)
			}
			return a.revoke(cmd.Context(), names, f)
		},
	}
	cmd.Flags().StringVar(&f.mode, "mode", fast, "`fast` or immediate")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why; it is recorded")
	cmd.Flags().StringVar(&f.ticket, "ticket", "", "where it is followed up")
	cmd.Flags().BoolVar(&f.all, "all", false, "every credential of the configuration")
	cmd.Flags().StringSliceVar(&f.backends, "backend", nil, "every credential of a `backend`, such as postgres")
	cmd.Flags().StringSliceVar(&f.services, "service", nil, "every credential that a `service` reads")
	cmd.Flags().StringSliceVar(&f.labels, "label", nil, "every credential that a service with this `label` reads: KEY, or KEY=VALUE")
	cmd.Flags().IntVar(&f.atOnce, "at-once", 10, "how `many` groups of credentials that share services go on at the same time")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and what would fail meanwhile")
	return cmd
}

// A revocation is what came of one credential.
type revocation struct {
	Credential string   `json:"credential"`
	Was        []int    `json:"was"` // that were valid
	Current    int      `json:"current"`
	Dead       []int    `json:"dead"`            // refused, and proven so
	Alive      []int    `json:"alive,omitempty"` // still valid, as far as is known
	Services   []string `json:"services,omitempty"`
	Millis     int64    `json:"ms"`
	Error      string   `json:"error,omitempty"`
	Hint       string   `json:"hint,omitempty"`

	exit int
}

// failed notes why it was not done.
func (r *revocation) failed(err error) {
	if err != nil {
		r.Error, r.Hint, r.exit = err.Error(), hintFor(err), exitCode(err)
	}
}

// open reports whether something of it is left to be done.
func (r revocation) open() bool { return len(r.Alive) > 0 || len(r.Dead) < len(r.Was) }

func (a *app) revoke(ctx context.Context, names []string, f revokeFlags) error {
	a.urgent = true
	w, err := a.wire(ctx, f.phases(), false)
	if err != nil {
		return err
	}
	defer w.close()
	ledger, err := w.ledger(ctx)
	if err != nil {
		return err
	}
	if names, err = w.chosen(ctx, names, f); err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		missing := len(ledger.Credential(name).Versions) == 0
		if missing {
			a.notef("%q was never adopted or rotated: nothing of it is on the record, and nothing is done for it", name)
		}
		return missing
	})
	if len(names) == 0 {
		a.nothing("there is nothing to revoke")
		return nil
	}
	groups := w.partition(ledger, names)
	a.printOutage(w, groups, f)
	if f.dryRun {
		return nil
	}
	var all []revocation
	begun := a.Now()
	for _, wave := range w.waves(groups) {
		all = append(all, a.revokeGroups(ctx, wave, f)...)
	}
	a.incident(ctx, w, begun, all, f)
	var lines []string
	for _, r := range all {
		lines = append(lines, r.Credential+": "+r.words()+", "+inService(r))
	}
	a.raise(notify.Incident, "revoke/"+begun.UTC().Format(time.RFC3339), "credentials were revoked: "+f.reason, strings.Join(lines, "\n"))
	return a.concludeRevocation(all)
}

// phases are the flags of the phases that a revocation goes through.
func (f revokeFlags) phases() phaseFlags {
	return phaseFlags{emergency: true, takeOver: true, force: "revoked: " + f.reason, reason: f.reason, revoking: f.reason, ticket: f.ticket}
}

// chosen are the credentials that are meant.
func (w *wiring) chosen(ctx context.Context, names []string, f revokeFlags) ([]string, error) {
	if err := w.known(names); err != nil {
		return nil, err
	}
	ways := 0
	for _, is := range []bool{len(names) > 0, f.all, len(f.backends)+len(f.services)+len(f.labels) > 0} {
		if is {
			ways++
		}
	}
	if ways != 1 {
		return nil, usagef(credentials(w.cfg), "name credentials, or --all, or --backend, --service and --label")
	}
	if len(names) > 0 {
		return slices.Compact(slices.Sorted(slices.Values(names))), nil
	}
	labelled, err := w.labelled(ctx, f.labels)
	if err != nil {
		return nil, err
	}
	f.services = append(slices.Clone(f.services), labelled...)
	var out []string
	for _, c := range w.cfg.Credentials {
		reads := slices.ContainsFunc(w.procs[c.Name].Placements, func(p rotation.Placement) bool { return slices.Contains(f.services, p.Service) })
		if f.all || slices.Contains(f.backends, c.Backend) || reads {
			out = append(out, c.Name)
		}
	}
	if len(out) == 0 {
		return nil, usagef(credentials(w.cfg), "no credential is of that backend or read by such a service")
	}
	return out, nil
}

// labelled are the services of the Swarm that have one of the labels.
func (w *wiring) labelled(ctx context.Context, labels []string) ([]string, error) {
	if len(labels) == 0 {
		return nil, nil
	}
	if w.swarm == nil {
		return nil, usagef("name credentials, or --backend or --service", "--label is of services of a Swarm, and there is none")
	}
	return w.swarm.Labelled(ctx, labels)
}

// servicesOf are those that read the credentials of a group.
func (w *wiring) servicesOf(group []string) []string {
	var out []string
	for _, name := range group {
		for _, p := range w.procs[name].Placements {
			if p.Service != "" && !slices.Contains(out, p.Service) {
				out = append(out, p.Service)
			}
		}
	}
	slices.Sort(out)
	return out
}

// printOutage says beforehand what will fail.
func (a *app) printOutage(w *wiring, groups [][]string, f revokeFlags) {
	if a.output == "json" {
		return
	}
	for _, group := range groups {
		services := strings.Join(w.servicesOf(group), ", ")
		ended, _ := w.revocable(group)
		gaps := w.gaps(group)
		switch {
		case services == "":
			a.printf("%s: no service is declared to read it\n", strings.Join(group, ", "))
		case f.mode == immediate && len(ended) > 0:
			a.printf("%s: %s fail from now on until they have been moved\n", strings.Join(group, ", "), services)
		case len(gaps) > 0:
			a.printf("%s: %s are moved, and there is a gap: %s\n", strings.Join(group, ", "), services, strings.Join(gaps, "; "))
		default:
			a.printf("%s: %s are moved; nothing is expected to fail\n", strings.Join(group, ", "), services)
		}
	}
}

// revocable are the credentials of a group whose versions in service can be ended at once; the error
// says why the others' cannot.
func (w *wiring) revocable(group []string) (names []string, err error) {
	for _, name := range group {
		if lasting, ok := w.procs[name].Backend.(rotation.Irrevocable); ok {
			err = errors.Join(err, fmt.Errorf("revoking %q: %w", name, lasting.Irrevocable()))
			continue
		}
		names = append(names, name)
	}
	return names, err
}

// gaps says what fails for a moment when the credentials of a group are moved.
func (w *wiring) gaps(group []string) (all []string) {
	for _, name := range group {
		if gap := w.procs[name].Gap(); gap != "" {
			all = append(all, gap)
		}
	}
	return all
}

// revokeGroups revokes groups that share no service, several at the same time.
func (a *app) revokeGroups(ctx context.Context, groups [][]string, f revokeFlags) []revocation {
	var mu sync.Mutex
	var all []revocation
	var ended sync.WaitGroup
	room := make(chan struct{}, f.atOnce)
	for _, group := range groups {
		room <- struct{}{}
		ended.Go(func() {
			defer func() { <-room }()
			b := a
			if len(groups) > 1 {
				b = a.beside(&mu, strings.Join(group, ","))
			}
			found := b.revokeGroup(ctx, group, f)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, found...)
			if b != a {
				a.phases, a.events = append(a.phases, b.phases...), append(a.events, b.events...)
			}
		})
	}
	ended.Wait()
	slices.SortFunc(all, func(x, y revocation) int { return strings.Compare(x.Credential, y.Credential) })
	return all
}

// beside is the same run for one of several groups, whose lines begin with its name.
func (a *app) beside(mu *sync.Mutex, name string) *app {
	p := a.Program
	p.Stdout = &prefixed{mu: mu, w: a.Stderr, name: name} // the whole run's own output is a table
	p.Stderr = &prefixed{mu: mu, w: a.Stderr, name: name}
	b := p.app()
	b.configPath, b.output, b.verbose, b.log, b.cfg, b.step, b.hub = a.configPath, "text", a.verbose, a.log, a.cfg, a.step, a.hub
	b.asked, b.signed, b.urgent = a.asked, a.signed, a.urgent
	return b
}

// prefixed writes whole lines, each with a name in front.
type prefixed struct {
	mu   *sync.Mutex
	w    io.Writer
	name string
	rest []byte
}

// Write implements [io.Writer].
func (p *prefixed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	for {
		i := bytes.IndexByte(p.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		if _, err := fmt.Fprintf(p.w, "%s: %s\n", p.name, p.rest[:i]); err != nil {
			return 0, err
		}
		p.rest = p.rest[i+1:]
	}
}

// revokeGroup revokes credentials that share services, and returns what came of each.
func (a *app) revokeGroup(ctx context.Context, group []string, f revokeFlags) []revocation {
	begun := a.Now()
	w, err := a.wire(ctx, f.phases(), false)
	if err != nil {
		return failedAll(group, err)
	}
	defer w.close()
	ledger, err := w.ledger(ctx)
	if err != nil {
		return failedAll(group, err)
	}
	was := map[string][]rotation.Version{}
	for _, name := range group {
		was[name] = slices.DeleteFunc(ledger.Credential(name).Live(), func(v rotation.Version) bool { return v.State == rotation.Pending })
	}
	failed := a.replace(ctx, w, group, f)
	return w.judgeRevocation(ctx, group, was, failed, begun)
}

func failedAll(group []string, err error) (all []revocation) {
	for _, name := range group {
		r := revocation{Credential: name}
		r.failed(err)
		all = append(all, r)
	}
	return all
}

// replace ends what is in service (at once, if it is so asked), brings a new version,
// and cleans up.
func (a *app) replace(ctx context.Context, w *wiring, group []string, f revokeFlags) error {
	var errs []error
	pf := f.phases()
	if err := w.mayRevoke(ctx, group, f); err != nil {
		return err
	}
	if f.mode == immediate {
		names, refused := w.revocable(group)
		procs, err := w.procedures(names)
		if err != nil {
			return err
		}
		if errs = append(errs, refused); len(procs) > 0 {
			sum, err := w.engine.Revoke(ctx, procs, rotation.Options{Reason: f.reason})
			w.tell(ctx, rotation.Revoke, names, sum, err)
			errs = append(errs, err) // what could not be ended now is ended by its cleanup
		}
	}
	for range 2 { // what is open is brought to its end first
		next, err := w.next(ctx, group)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		switch {
		case next == rotation.Rollback:
			err = a.endRollback(ctx, w, group, pf)
		case next == rotation.Cleanup:
			err = a.cleaned(ctx, w, group, pf)
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	if err := a.forward(ctx, w, group, pf); err != nil {
		if f.mode == fast && rotation.ClassOf(err) == rotation.Refused {
			err = rotation.Classify(rotation.Refused, fmt.Sprintf("without a free one: keyturn revoke --mode immediate --reason %q %s", f.reason, strings.Join(group, " ")), err)
		}
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, a.cleaned(ctx, w, group, pf))...)
}

// cleaned ends the version before without waiting.
func (a *app) cleaned(ctx context.Context, w *wiring, group []string, f phaseFlags) error {
	sum, err := a.cleanUp(ctx, w, group, f)
	return a.report(sum, err, f.due)
}

// judgeRevocation looks what is still alive of what was valid before: in the record, and
// in the backend.
func (w *wiring) judgeRevocation(ctx context.Context, group []string, was map[string][]rotation.Version, failed error, begun time.Time) []revocation {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	var all []revocation
	ledger, err := w.ledger(ctx)
	if err != nil {
		return failedAll(group, errors.Join(failed, err))
	}
	for _, name := range group {
		c := ledger.Credential(name)
		current, _ := c.In(rotation.Current)
		r := revocation{Credential: name, Current: current.Number, Services: w.servicesOf([]string{name}), Millis: w.app.Now().Sub(begun).Milliseconds()}
		r.failed(failed)
		for _, v := range was[name] {
			r.Was = append(r.Was, v.Number)
			now, ok := c.Version(v.Number)
			if ok {
				v = now
			}
			standing, err := w.procs[name].Backend.Observe(ctx, v)
			dead := err == nil && (standing.Status == rotation.Ended || standing.Status == rotation.Absent) && len(standing.Uses) == 0
			if dead && ok && now.State == rotation.Retired {
				r.Dead = append(r.Dead, v.Number)
			} else if !dead {
				r.Alive = append(r.Alive, v.Number)
			}
		}
		all = append(all, r)
	}
	return all
}

// concludeRevocation says what came of it. What is still alive, or not replaced, is
// exit 4.
func (a *app) concludeRevocation(all []revocation) error {
	code := exitDone
	for _, r := range all {
		switch {
		case r.exit != exitDone:
			code = worse(code, r.exit)
		case r.open():
			code = worse(code, exitStuck)
		}
	}
	if a.output == "json" {
		a.revoked = all
	} else {
		t := tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
		for _, r := range all {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Credential, r.words(), inService(r), seconds(r.Millis))
		}
		_ = t.Flush() // the printer keeps its error
		for _, r := range all {
			if r.Error != "" {
				a.say(r.Credential+": "+r.Error, r.Hint)
			}
		}
	}
	if code != exitDone {
		return exitStatus(code)
	}
	return nil
}

func (r revocation) words() string {
	var parts []string
	for _, n := range r.Was {
		switch {
		case slices.Contains(r.Dead, n):
			parts = append(parts, fmt.Sprintf("v%d dead", n))
		case slices.Contains(r.Alive, n):
			parts = append(parts, fmt.Sprintf("v%d STILL ALIVE", n))
		default:
			parts = append(parts, fmt.Sprintf("v%d ended, not proven", n))
		}
	}
	if parts == nil {
		return "nothing was valid"
	}
	return strings.Join(parts, ", ")
}

func inService(r revocation) string {
	if slices.Contains(r.Was, r.Current) {
		return fmt.Sprintf("v%d NOT REPLACED", r.Current)
	}
	return fmt.Sprintf("v%d in service", r.Current)
}
