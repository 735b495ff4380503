package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/telemetry"
)

// telemetryTime bounds what it costs a run, at its very end, to hand on what was measured.
const telemetryTime = 10 * time.Second

// measuredCommands are those of which the absence says something: they run by schedule, or
// change something.
var measuredCommands = []string{"adopt", "prepare", "validate", "cutover", "cleanup", "rotate", "rollback", "revoke", "check", "audit verify", "propose", "plan"}

// measured is what a run has to hand on.
type measured struct {
	record   []telemetry.Family // nil if the record was not read
	spans    []telemetry.Span
	since    time.Time // of the record
	found    telemetry.Set
	requests map[string]int // to GitHub, by their kind

	read    bool // the variables of OpenTelemetry were
	otlp    telemetry.OTLP
	otlpErr error
}

// otlp reads, once in a run, where OpenTelemetry's variables say that things go.
func (a *app) otlp() (telemetry.OTLP, error) {
	if m := &a.measured; !m.read {
		m.read = true
		m.otlp, m.otlpErr = telemetry.FromEnvironment(a.Getenv)
	}
	return a.measured.otlp, a.measured.otlpErr
}

// wanted reports whether anybody wants to know what is measured.
func (a *app) wanted() bool {
	if a.cfg == nil {
		return false
	}
	if a.cfg.Telemetry != nil && a.cfg.Telemetry.Pushgateway != "" {
		return true
	}
	o, err := a.otlp()
	return err != nil || o.Metrics != nil || o.Traces != nil
}

// measure keeps what the record says. Nothing is asked for it that was not read anyway, but
// for a file.
func (w *wiring) measure() {
	if w.home == nil || !w.app.wanted() {
		return
	}
	var records []rotation.Record
	if s, ok := w.journal.(*spooled); ok {
		records = placed(s.Seen(), 0)
	} else {
		entries, err := w.home.Read(context.Background())
		if err != nil {
			return // the run has said so
		}
		for _, e := range entries {
			records = append(records, recordOf(e))
		}
	}
	run := ""
	if w.engine != nil {
		run = w.engine.Run.Run
	}
	w.app.measureRecord(records, run)
}

// measureRecord measures records, and the runs of one process among them.
func (a *app) measureRecord(records []rotation.Record, run string) {
	ledger, err := rotation.Replay(records)
	if err != nil || len(records) == 0 {
		return
	}
	var watched []telemetry.Watched
	for _, c := range a.cfg.Credentials {
		now := ledger.Credential(c.Name)
		at, complete := now.At(rotation.Validate)
		watched = append(watched, telemetry.Watched{Credential: now, Due: dueAt(c, now), Approval: at && complete && c.Approve != nil && c.Approve.Cutover != nil})
	}
	var s telemetry.Set
	telemetry.Record(&s, records, watched)
	a.measured.record, a.measured.since = s.Families(), records[0].Time
	if run != "" {
		a.measured.spans = telemetry.Trace(records, run)
	}
}

// measureFound counts what check found, of every credential and level.
func (e *examination) measureFound() {
	const name, help = "keyturn_check_findings", "What the last check found, by credential; \"\" is what belongs to none."
	s := &e.measured.found
	for _, credential := range append(namesOf(e.cfg), "") {
		for _, level := range []string{string(rotation.Problem), string(rotation.Warning)} {
			n := 0
			for _, f := range e.found {
				if f.Credential == credential && string(f.Level) == level {
					n++
				}
			}
			s.Set(name, help, float64(n), "credential", credential, "level", level)
		}
	}
}

// handOn hands on what was measured. It fails nothing, and takes a bounded time.
func (a *app) handOn(cmd *cobra.Command, code int, begun time.Time) {
	command := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
	due, dry := cmd.Flags().Changed("due"), cmd.Flags().Changed("dry-run")
	if !a.wanted() || dry || !slices.Contains(measuredCommands, command) || command == "plan" && !due {
		return
	}
	environment := config.DefaultEnvironment
	if a.cfg.Telemetry != nil {
		environment = a.cfg.Telemetry.Environment
	}
	record := telemetry.With(a.measured.record, "environment", environment)
	run := telemetry.With(append(a.runFamilies(command, code, begun), a.measured.found.Families()...), "environment", environment)
	ctx, cancel := context.WithTimeout(context.Background(), telemetryTime)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	try := func(what string, do func() error) {
		all.Go(func() {
			if err := do(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				a.notef("%s could not be told what was measured: %v", what, err)
			}
		})
	}
	if t := a.cfg.Telemetry; t != nil && t.Pushgateway != "" {
		try("the Pushgateway", func() error { return a.push(ctx, t, command, record, run) })
	}
	o, err := a.otlp()
	if err != nil {
		a.notef("nothing is sent by OpenTelemetry: %v", err)
		o = telemetry.OTLP{}
	}
	for _, s := range o.Secrets() {
		a.maskValue(s)
	}
	now := a.Now()
	resource := append(slices.Clone(o.Resource), telemetry.Label{Name: "deployment.environment.name", Value: environment})
	since := a.measured.since
	if since.IsZero() {
		since = now
	}
	if o.Metrics != nil {
		body := telemetry.Metrics(append(record, run...), resource, version(), since, now)
		try("the endpoint of OTEL_EXPORTER_OTLP for metrics", func() error { return o.Metrics.Send(ctx, body) })
	}
	if o.Traces != nil && len(a.measured.spans) > 0 {
		body := telemetry.Spans(a.measured.spans, resource, version())
		try("the endpoint of OTEL_EXPORTER_OTLP for traces", func() error { return o.Traces.Send(ctx, body) })
	}
	all.Wait()
}

// push replaces what a Pushgateway has of the record, and of the last run of a command.
func (a *app) push(ctx context.Context, t *config.Telemetry, command string, record, run []telemetry.Family) error {
	gate := telemetry.Pushgateway{URL: t.Pushgateway, User: t.User, HTTP: telemetry.NewClient()}
	if !t.Password.IsZero() {
		var err error
		if gate.Password, err = t.Password.Read(a.Getenv); err != nil {
			return fmt.Errorf("reading its password: %w", err)
		}
		a.maskValue(gate.Password)
	}
	if len(record) > 0 {
		if err := gate.Push(ctx, record, "job", "keyturn", "environment", t.Environment, "of", "record"); err != nil {
			return err
		}
	}
	return gate.Push(ctx, run, "job", "keyturn", "environment", t.Environment, "of", "run", "command", command)
}

// runFamilies measure this run itself.
func (a *app) runFamilies(command string, code int, begun time.Time) []telemetry.Family {
	var s telemetry.Set
	s.SetTime("keyturn_last_run_timestamp_seconds", "When a command ran last.", a.Now(), "command", command)
	s.Set("keyturn_last_run_exit_code", "The exit code of a command's last run.", float64(code), "command", command)
	s.Set("keyturn_last_run_duration_seconds", "How long a command's last run took.", a.Now().Sub(begun).Seconds(), "command", command)
	for _, kind := range sortedKeys(a.measured.requests) {
		s.Set("keyturn_last_run_github_requests", "Requests to GitHub of a command's last run: reads, writes, and those about tokens.", float64(a.measured.requests[kind]), "command", command, "kind", kind)
	}
	return s.Families()
}
