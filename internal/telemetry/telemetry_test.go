package telemetry_test

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/telemetry"
	"github.com/keyturn/keyturn/internal/testserver"
)

const canary = "Xk7canary9"

func families() []telemetry.Family {
	var s telemetry.Set
	s.Set("keyturn_open", "Open.", 1, "credential", `a "b" \`+"\n")
	s.Add("keyturn_things_total", "Things.", 2, "credential", "x", "a", "first")
	s.Add("keyturn_things_total", "Things.", 0.5, "a", "first", "credential", "x")
	s.SetTime("keyturn_never_timestamp_seconds", "Never.", time.Time{})
	s.SetTime("keyturn_at_timestamp_seconds", "At.", time.UnixMilli(1_700_000_000_250))
	for _, d := range []time.Duration{500 * time.Millisecond, time.Second, 29 * time.Second, 2 * time.Hour} {
		s.Observe("keyturn_took_seconds", "Took.", d, "phase", "cutover")
	}
	return s.Families()
}

func TestText(t *testing.T) {
	t.Parallel()
	const want = `# HELP keyturn_open Open.
# TYPE keyturn_open gauge
keyturn_open{credential="a \"b\" \\\n"} 1
# HELP keyturn_things_total Things.
# TYPE keyturn_things_total counter
keyturn_things_total{a="first",credential="x"} 2.5
# HELP keyturn_at_timestamp_seconds At.
# TYPE keyturn_at_timestamp_seconds gauge
keyturn_at_timestamp_seconds 1.70000000025e+09
# HELP keyturn_took_seconds Took.
# TYPE keyturn_took_seconds histogram
keyturn_took_seconds_bucket{phase="cutover",le="1"} 2
keyturn_took_seconds_bucket{phase="cutover",le="2.5"} 2
keyturn_took_seconds_bucket{phase="cutover",le="5"} 2
keyturn_took_seconds_bucket{phase="cutover",le="10"} 2
keyturn_took_seconds_bucket{phase="cutover",le="15"} 2
keyturn_took_seconds_bucket{phase="cutover",le="30"} 3
keyturn_took_seconds_bucket{phase="cutover",le="60"} 3
keyturn_took_seconds_bucket{phase="cutover",le="120"} 3
keyturn_took_seconds_bucket{phase="cutover",le="300"} 3
keyturn_took_seconds_bucket{phase="cutover",le="600"} 3
keyturn_took_seconds_bucket{phase="cutover",le="1800"} 3
keyturn_took_seconds_bucket{phase="cutover",le="3600"} 3
keyturn_took_seconds_bucket{phase="cutover",le="+Inf"} 4
keyturn_took_seconds_sum{phase="cutover"} 7230.5
keyturn_took_seconds_count{phase="cutover"} 4
`
	text := telemetry.Text(families())
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	program, err := exec.LookPath("promtool")
	if err != nil {
		testserver.Require(t, testserver.ErrMissing)
	}
	cmd := exec.Command(program, "check", "metrics")
	cmd.Stdin = strings.NewReader(string(text))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// TestMetricsAsOTLP reads what is sent by OpenTelemetry's own definitions.
func TestMetricsAsOTLP(t *testing.T) {
	t.Parallel()
	since, now := time.Unix(100, 0), time.Unix(200, 5)
	var got metricspb.MetricsData
	if err := proto.Unmarshal(telemetry.Metrics(families(), telemetry.Resource{{Name: "service.name", Value: "keyturn"}}, "v1", since, now), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.ProtoReflect().GetUnknown()) > 0 || len(got.ResourceMetrics) != 1 || len(got.ResourceMetrics[0].ScopeMetrics) != 1 {
		t.Fatalf("got %v", &got)
	}
	r := got.ResourceMetrics[0]
	if a := r.Resource.Attributes; len(a) != 1 || a[0].Key != "service.name" || a[0].Value.GetStringValue() != "keyturn" {
		t.Errorf("the resource is %v", r.Resource)
	}
	m := r.ScopeMetrics[0].Metrics
	if len(m) != 4 || r.ScopeMetrics[0].Scope.Version != "v1" {
		t.Fatalf("got %v", r.ScopeMetrics[0])
	}
	if p := m[0].GetGauge().GetDataPoints(); len(p) != 1 || p[0].GetAsDouble() != 1 || p[0].TimeUnixNano != 200_000_000_005 || p[0].Attributes[0].Value.GetStringValue() != "a \"b\" \\\n" {
		t.Errorf("the gauge is %v", m[0])
	}
	if s := m[1].GetSum(); s == nil || !s.IsMonotonic || s.AggregationTemporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE ||
		s.DataPoints[0].GetAsDouble() != 2.5 || s.DataPoints[0].StartTimeUnixNano != 100_000_000_000 || len(s.DataPoints[0].Attributes) != 2 {
		t.Errorf("the counter is %v", m[1])
	}
	h := m[3].GetHistogram()
	if h == nil || len(h.DataPoints) != 1 || h.AggregationTemporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE || m[3].Unit != "s" {
		t.Fatalf("the histogram is %v", m[3])
	}
	d := h.DataPoints[0]
	if d.Count != 4 || d.GetSum() != 7230.5 || !cmp.Equal(d.ExplicitBounds, telemetry.Bounds) ||
		!cmp.Equal(d.BucketCounts, []uint64{2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1}) {
		t.Errorf("the distribution is %v", d)
	}
}

func record(at int, credential, step string, phase rotation.Phase, status rotation.RecordStatus, evidence string) rotation.Record {
	r := rotation.Record{Time: time.Unix(int64(at), 0), Credential: credential, Rotation: "R1", Step: step, Phase: phase, Status: status, Version: 2}
	if evidence != "" {
		r.Evidence = map[string]jsonText{}
		for pair := range strings.SplitSeq(evidence, ";") {
			key, value, _ := strings.Cut(pair, "=")
			r.Evidence[key] = jsonText(value)
		}
	}
	return r
}

// TestTraceAsOTLP finds all phases of a rotation in one trace, whichever process they were in.
func TestTraceAsOTLP(t *testing.T) {
	t.Parallel()
	lease := func(at int, run string, epoch string, phase rotation.Phase) rotation.Record {
		return record(at, "db", "lease", phase, rotation.RecordNote, `holder={"run":"`+run+`","phase":"`+string(phase)+`","epoch":`+epoch+`}`)
	}
	records := []rotation.Record{
		lease(100, "one", "1", rotation.Prepare),
		record(101, "db", "", rotation.Prepare, rotation.RecordIntent, ""),
		record(102, "db", "put", rotation.Prepare, rotation.RecordStarted, ""),
		record(104, "db", "put", rotation.Prepare, rotation.RecordDone, "ms=2000"),
		record(105, "db", "", rotation.Prepare, rotation.RecordDone, ""),
		record(106, "db", "release", rotation.Prepare, rotation.RecordNote, ""),
		lease(200, "two", "2", rotation.Validate),
		record(201, "db", "", rotation.Validate, rotation.RecordIntent, ""),
		record(205, "db", "probe", rotation.Validate, rotation.RecordFailed, "ms=3000"),
		record(206, "db", "", rotation.Rollback, rotation.RecordIntent, `cause={}`),
		record(210, "db", "", rotation.Rollback, rotation.RecordUndone, ""),
		record(211, "db", "release", rotation.Validate, rotation.RecordNote, ""),
	}
	read := func(run string) []*tracepb.Span {
		var got tracepb.TracesData
		if err := proto.Unmarshal(telemetry.Spans(telemetry.Trace(records, run), nil, "v1"), &got); err != nil {
			t.Fatal(err)
		}
		return got.ResourceSpans[0].ScopeSpans[0].Spans
	}
	one, two := read("one"), read("two")
	if len(one) != 2 || len(two) != 2 {
		t.Fatalf("got %v and %v", one, two)
	}
	if one[0].Name != "prepare db" || one[1].Name != "put" || string(one[1].ParentSpanId) != string(one[0].SpanId) || one[1].StartTimeUnixNano != 102e9 || one[1].EndTimeUnixNano != 104e9 {
		t.Errorf("prepare is %v", one)
	}
	if string(one[0].TraceId) != string(two[0].TraceId) || string(one[0].SpanId) == string(two[0].SpanId) || len(one[0].TraceId) != 16 || len(one[0].SpanId) != 8 {
		t.Errorf("validate is %v", two)
	}
	if two[0].Status.Code != tracepb.Status_STATUS_CODE_ERROR || one[0].Status.Code != tracepb.Status_STATUS_CODE_OK || two[1].Status.Code != tracepb.Status_STATUS_CODE_ERROR || two[1].StartTimeUnixNano != 202e9 {
		t.Errorf("the statuses are %v and %v", one[0].Status, two)
	}

	var s telemetry.Set
	telemetry.Record(&s, records, []telemetry.Watched{{Credential: rotation.Credential{Name: "db"}}})
	text := string(telemetry.Text(s.Families()))
	for _, want := range []string{
		`keyturn_phase_failures_total{credential="db",phase="validate"} 1`, `keyturn_phase_failures_total{credential="db",phase="prepare"} 0`,
		`keyturn_phase_failing{credential="db",phase="validate"} 1`, `keyturn_failed_logins_total{credential="db"} 1`,
		`keyturn_rollbacks_total{credential="db",reason="automatic"} 1`, `keyturn_rotations_total{credential="db",status="rolled_back"} 1`,
		`keyturn_phase_duration_seconds_sum{credential="db",phase="prepare",status="done"} 6`,
		`keyturn_phase_duration_seconds_count{credential="db",phase="validate",status="rolled_back"} 1`,
		`keyturn_rotation_duration_seconds_sum{credential="db",status="rolled_back"} 17`,
		`keyturn_record_entries 12`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

// TestInterrupted counts a run that was killed when the next one takes its lease.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	records := []rotation.Record{
		record(100, "db", "lease", rotation.Cutover, rotation.RecordNote, `holder={"run":"one","phase":"cutover","epoch":1}`),
		record(101, "db", "", rotation.Cutover, rotation.RecordIntent, ""),
		record(103, "db", "move", rotation.Cutover, rotation.RecordStarted, ""),
		record(900, "db", "lease", rotation.Cutover, rotation.RecordNote, `holder={"run":"two","phase":"cutover","epoch":2}`),
		record(905, "db", "move", rotation.Cutover, rotation.RecordDone, `services=[{"service":"api","updated":true,"restarts":3,"slowest_health":4000,"unhealthy_task_ms":1500}]`),
		record(906, "db", "", rotation.Cutover, rotation.RecordDone, ""),
		record(907, "db", "release", rotation.Cutover, rotation.RecordNote, ""),
	}
	runs := rotation.History(records)
	if len(runs) != 2 || runs[0].Status != rotation.RunInterrupted || runs[0].Duration() != 3*time.Second || runs[1].Status != rotation.RunDone || runs[1].Duration() != 7*time.Second {
		t.Errorf("the runs are %+v", runs)
	}
	var s telemetry.Set
	telemetry.Record(&s, records, []telemetry.Watched{{Credential: rotation.Credential{Name: "db"}}})
	text := string(telemetry.Text(s.Families()))
	for _, want := range []string{
		`keyturn_phase_failures_total{credential="db",phase="cutover"} 1`, `keyturn_phase_failing{credential="db",phase="cutover"} 0`,
		`keyturn_tasks_replaced_total{credential="db",service="api"} 3`, `keyturn_unhealthy_task_seconds_total{credential="db",service="api"} 1.5`,
		`keyturn_health_check_slowest_seconds{credential="db",service="api"} 4`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestPushgateway(t *testing.T) {
	t.Parallel()
	gate := telemetry.Pushgateway{URL: testserver.NewPushgateway(t), HTTP: telemetry.NewClient()}
	group := []string{"job", "keyturn", "environment", "a/b %", "of", "run", "command", "audit verify"}
	if err := gate.Push(t.Context(), families(), group...); err != nil {
		t.Fatal(err)
	}
	read := func() string {
		resp, err := http.Get(gate.URL + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if text := read(); !strings.Contains(text, `keyturn_things_total{a="first",command="audit verify",credential="x",environment="a/b %",instance="",job="keyturn",of="run"} 2.5`) {
		t.Errorf("the gateway has\n%s", text)
	}
	if err := gate.Push(t.Context(), families()[:1], group...); err != nil {
		t.Fatal(err)
	}
	if text := read(); strings.Contains(text, "keyturn_things_total") || !strings.Contains(text, "keyturn_open{") {
		t.Errorf("after a second push the gateway has\n%s", text)
	}
	var twice telemetry.Set
	twice.Set("keyturn_open", "Open.", 1, "job", "x")
	err := gate.Push(t.Context(), append(families(), families()...), group...)
	if err == nil || !strings.Contains(err.Error(), "the answer is 400") {
		t.Errorf("a push of the same twice = %v, want the gateway's refusal", err)
	}
}

// TestNothingIsRepeated grows no error from a secret.
func TestNothingIsRepeated(t *testing.T) {
	t.Parallel()
	var seen http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		if strings.HasSuffix(r.URL.Path, "/moved") {
			http.Redirect(w, r, "http://127.0.0.1:1/"+canary, http.StatusFound)
			return
		}
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer server.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, url := range []string{server.URL, server.URL + "/moved", gone.URL} {
		e, err := telemetry.FromEnvironment(env(map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url + "?token=" + canary, "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20" + canary}))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(e.Secrets()); n != 1 {
			t.Errorf("%d secrets, want 1", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err = e.Traces.Send(ctx, nil)
		cancel()
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: Send = %v", url, err)
		}
		gate := telemetry.Pushgateway{URL: url, User: "u", Password: secret.FromString(canary), HTTP: telemetry.NewClient()}
		if err := gate.Push(t.Context(), nil, "job", "x"); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: Push = %v", url, err)
		}
	}
	if _, password, ok := (&http.Request{Header: seen}).BasicAuth(); !ok || password != canary {
		t.Errorf("the gateway saw %v, want the login", seen)
	}
}

func env(m map[string]string) func(string) string { return func(name string) string { return m[name] } }

func TestFromEnvironment(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env     map[string]string
		metrics bool
		traces  bool
		fault   string
	}{
		"nothing":          {},
		"an endpoint":      {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, metrics: true, traces: true},
		"disabled":         {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}},
		"one signal":       {env: map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/x"}, metrics: true},
		"an exporter":      {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, traces: true},
		"none":             {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, traces: true},
		"unknown exporter": {env: map[string]string{"OTEL_METRICS_EXPORTER": "console"}, fault: "OTEL_METRICS_EXPORTER: only otlp and none"},
		"grpc":             {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, fault: "only http/protobuf"},
		"no URL":           {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": canary + ":4317"}, fault: "OTEL_EXPORTER_OTLP_ENDPOINT: want a URL"},
		"headers":          {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_HEADERS": canary}, fault: "OTEL_EXPORTER_OTLP_HEADERS: want key=value"},
		"timeout":          {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TIMEOUT": "5s"}, fault: "OTEL_EXPORTER_OTLP_TIMEOUT: want milliseconds"},
		"compression":      {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, fault: "want gzip or none"},
		"certificate":      {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere"}, fault: "OTEL_EXPORTER_OTLP_CERTIFICATE: no certificate"},
		"attributes":       {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_RESOURCE_ATTRIBUTES": "x"}, fault: "OTEL_RESOURCE_ATTRIBUTES: want key=value"},
	} {
		o, err := telemetry.FromEnvironment(env(c.env))
		switch {
		case c.fault == "" && err != nil, c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), canary)):
			t.Errorf("%s: %v, want %q", name, err, c.fault)
		case c.fault == "" && ((o.Metrics != nil) != c.metrics || (o.Traces != nil) != c.traces):
			t.Errorf("%s: metrics %v, traces %v", name, o.Metrics, o.Traces)
		}
	}
}

// TestSend sends to where the variables say, again what may be over soon, and in a bounded time.
func TestSend(t *testing.T) {
	t.Parallel()
	var bodies, paths []string
	answers := []int{503, 200}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		b, _ := io.ReadAll(z)
		bodies, paths = append(bodies, string(b)+r.Header.Get("X-Token")+r.Header.Get("Content-Type")), append(paths, r.URL.Path)
		w.WriteHeader(answers[0])
		answers = answers[1:]
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pemOf(server.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := telemetry.FromEnvironment(env(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL + "/base/", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
		"OTEL_EXPORTER_OTLP_CERTIFICATE": ca, "OTEL_EXPORTER_OTLP_HEADERS": "x-token=a%2Cb", "OTEL_SERVICE_NAME": "ours", "OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs, team=a%20b"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Metrics.Send(t.Context(), []byte("body ")); err != nil {
		t.Error(err)
	}
	if want := []string{"body a,bapplication/x-protobuf", "body a,bapplication/x-protobuf"}; !cmp.Equal(bodies, want) || paths[0] != "/base/v1/metrics" {
		t.Errorf("sent %q to %q", bodies, paths)
	}
	if diff := cmp.Diff(telemetry.Resource{{Name: "team", Value: "a b"}, {Name: "service.name", Value: "ours"}}, o.Resource); diff != "" {
		t.Error(diff)
	}
}
