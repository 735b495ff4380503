package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/keyturn/keyturn/internal/testserver"
)

// alertRules are the rules that users load.
const alertRules = "../../docs/monitoring/alerts.yml"

// A gate keeps what is pushed to it, by group, as a Pushgateway does.
type gate struct {
	mu     sync.Mutex
	groups map[string]string
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.groups[r.URL.Path] = string(b)
	w.WriteHeader(http.StatusOK)
}

// series are the values that the gate has now, by name and labels.
func (g *gate) series(t testing.TB) map[string]float64 {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]float64{}
	for _, text := range g.groups {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			at := strings.LastIndexByte(line, ' ')
			v, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
			if err != nil {
				t.Fatalf("a line of what is measured: %q", line)
			}
			out[line[:at]] = v
		}
	}
	return out
}

// measuredBy makes a shop push what is measured to a gate.
func (s *shop) measuredBy(url string) {
	s.t.Helper()
	b, err := os.ReadFile(s.config)
	s.must(err)
	s.must(os.WriteFile(s.config, append(b, []byte(fmt.Sprintf("telemetry: {pushgateway: %q, environment: shop}\n", url))...), 0o600))
}

// fires checks which alerts fire after something happened, and how long after: until then
// nothing else happens.
func (s *shop) fires(g *gate, when string, happens func(), after time.Duration, alerts ...string) {
	s.t.Helper()
	const at, turn = 120, 90 // minutes
	before := g.series(s.t)
	happens()
	now := float64(time.Now().UnixMilli()) / 1000
	series := map[string]string{}
	value := func(name string, v float64) string {
		if bare, _, _ := strings.Cut(name, "{"); strings.HasSuffix(bare, "_timestamp_seconds") {
			v += at*60 - after.Seconds() - now
		}
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	for name, v := range g.series(s.t) {
		was := fmt.Sprintf("_x%d", turn)
		if old, there := before[name]; there {
			was = fmt.Sprintf("%s+0x%d", value(name, old), turn-1)
		}
		series[name] = fmt.Sprintf("%s %s+0x%d", was, value(name, v), at-turn+1)
	}
	rules, err := filepath.Abs(alertRules)
	s.must(err)
	s.t.Log(when)
	testserver.Firing(s.t, rules, series, at*time.Minute, alerts...)
}

// TestAlerts has real faults happen to a rotation, and the alerts fire that are for them, and
// no others.
func TestAlerts(t *testing.T) {
	t.Parallel()
	g := &gate{groups: map[string]string{}}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	s := newShop(t, servers.postgres.Get(t), "overlap: 24h")
	s.measuredBy(server.URL)
	config, err := os.ReadFile(s.config)
	s.must(err)
	nothing := func() {}

	s.fires(g, "before the first run", nothing, 0, "KeyturnAbsent")
	s.fires(g, "a rotation", func() {
		s.ok("adopt", s.name)
		s.ok("rotate", s.name)
		s.ok("cleanup", "--force", "a test", s.name)
		s.ok("check")
		s.ok("audit", "verify")
		s.ok("plan", "--due")
	}, 0)
	s.fires(g, "nothing for four hours", nothing, 4*time.Hour, "KeyturnSilent")
	s.fires(g, "nothing for 27 hours", nothing, 27*time.Hour, "KeyturnSilent", "KeyturnCheckSilent")
	s.fires(g, "nothing for 92 days", nothing, 92*24*time.Hour, "KeyturnSilent", "KeyturnCheckSilent", "KeyturnOverdue")

	s.fires(g, "an old login works again", func() {
		s.sql("postgres", fmt.Sprintf("alter role %s login password 'back again'", s.name))
		s.fails(6, nil, "check")
	}, 0, "KeyturnCheckFound")
	s.fires(g, "and is ended again", func() {
		s.sql("postgres", fmt.Sprintf("alter role %s nologin password null valid until '-infinity'", s.name))
		s.ok("check")
	}, 0)

	s.fires(g, "the next version does not work", func() {
		s.ok("prepare", "--emergency", s.name)
		s.sql("postgres", fmt.Sprintf("alter role %s_b nologin", s.name))
		s.fails(1, nil, "validate", s.name)
	}, 0, "KeyturnPhaseFailing", "KeyturnRolledBack", "KeyturnLoginsFailed", "KeyturnRunFailed")
	s.fires(g, "and another does", func() {
		s.ok("prepare", "--emergency", s.name)
		s.ok("validate", s.name)
	}, 0)
	s.fires(g, "it stays there for eight days", nothing, 8*24*time.Hour, "KeyturnSilent", "KeyturnCheckSilent", "KeyturnRotationOpen")
	s.fires(g, "it is cut over", func() { s.ok("cutover", s.name) }, 0)
	inService := s.inService()
	s.fires(g, "nobody cleans up", nothing, 31*time.Hour, "KeyturnSilent", "KeyturnCheckSilent", "KeyturnCleanupLate")

	s.fires(g, "the database is away", func() {
		s.must(os.WriteFile(s.config, []byte(strings.Replace(string(config), "@"+s.pg.Addr(), "@127.0.0.1:1", 1)), 0o600))
		s.fails(4, nil, "cleanup", "--force", "a test", s.name)
		s.must(os.WriteFile(s.config, config, 0o600))
	}, 0, "KeyturnRunFailed")
	s.fires(g, "an object cannot be removed", func() {
		r := s.start("before effect: cleanup remove", "cleanup", "--force", "a test", s.name)
		s.point("v2") // somebody uses it again, at the last moment
		r.goOn()
		if r := r.wait(); r.code != 0 {
			t.Fatalf("cleanup: exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		s.point(inService)
	}, 25*time.Hour, "KeyturnSilent", "KeyturnRetirementQueue")
	s.fires(g, "somebody edits the record", func() {
		b, err := os.ReadFile(s.journal)
		s.must(err)
		s.must(os.WriteFile(s.journal, []byte(strings.Replace(string(b), `"step":"probe"`, `"step":"prove"`, 1)), 0o600))
		s.fails(5, nil, "audit", "verify")
	}, 0, "KeyturnRecordNotIntact")
}

// TestTelemetry hands on what real rotations measured to a real Pushgateway, which a real
// Prometheus reads, and by OTLP: every query of the dashboard has an answer.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	gateway := testserver.NewPushgateway(t)
	rules, err := filepath.Abs(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	prometheus := testserver.NewPrometheus(t, gateway, rules)
	const canary = "Xk7canary9"
	var mu sync.Mutex
	var sent []*metricspb.MetricsData
	var spans []*tracepb.Span
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		b, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer "+canary {
			t.Errorf("the collector saw %v", r.Header)
		}
		switch r.URL.Path {
		case "/v1/metrics":
			var m metricspb.MetricsData
			s := proto.Unmarshal(b, &m)
			if s != nil {
				t.Error(s)
			}
			sent = append(sent, &m)
		case "/v1/traces":
			var m tracepb.TracesData
			if err := proto.Unmarshal(b, &m); err != nil {
				t.Error(err)
			}
			spans = append(spans, m.ResourceSpans[0].ScopeSpans[0].Spans...)
		default:
			t.Errorf("something was sent to %s", r.URL.Path)
		}
	}))
	t.Cleanup(collector.Close)

	k := newStack(t, servers.postgres.Get(t), nil)
	k.measuredBy(gateway)
	k.secrets = append(k.secrets, canary)
	k.env = append(k.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL, "OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20"+canary)
	k.ok("adopt", k.name)
	k.ok("rotate", "--wait", k.name)
	k.ok("check")
	k.run("plan", "--due")

	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile("../../docs/monitoring/dashboard.json")
	k.must(err)
	k.must(json.Unmarshal(text, &board))
	variables := strings.NewReplacer("$environment", ".*", "$credential", ".*")
	queries := 0
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			queries++
			answered := false
			for end := time.Now().Add(time.Minute); !answered && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
				got, err := prometheus.Query(t.Context(), variables.Replace(q.Expr))
				if err != nil {
					t.Fatalf("%s: %v", p.Title, err)
				}
				answered = len(got) > 0
			}
			if !answered {
				t.Errorf("%s: no answer to %s", p.Title, q.Expr)
			}
		}
	}
	if queries < 15 {
		t.Errorf("the dashboard has %d queries", queries)
	}
	for expr, want := range map[string]string{
		`keyturn_version{state="current"}`:                                                   "2",
		`keyturn_rotations_total{status="done"}`:                                             "1",
		`keyturn_tasks_replaced_total`:                                                       "2",
		`keyturn_failed_logins_total`:                                                        "0",
		`keyturn_last_run_exit_code{command="rotate"}`:                                       "0",
		`keyturn_phase_duration_seconds_count{phase="cutover",status="done"}`:                "1",
		`keyturn:rotations_done:ratio`:                                                       "1",
		`count(ALERTS{alertname!~"KeyturnTasksUnhealthy|KeyturnRotationSlow"}) or vector(0)`: "0",
	} {
		got, err := prometheus.Query(t.Context(), expr)
		k.must(err)
		for labels, v := range got {
			if v != want {
				t.Errorf("%s is %s of %s, want %s", expr, v, labels, want)
			}
		}
		if len(got) != 1 {
			t.Errorf("%s has %d answers: %v", expr, len(got), got)
		}
	}

	mu.Lock()
	defer mu.Unlock()
	traces, names := map[string]bool{}, map[string]bool{}
	for _, s := range spans {
		names[s.Name] = true
		if strings.HasPrefix(s.Name, "prepare ") || strings.HasPrefix(s.Name, "cutover ") || strings.HasPrefix(s.Name, "cleanup ") {
			traces[string(s.TraceId)] = true
		}
	}
	if len(traces) != 1 || !names["move"] || !names["proof"] || !names["adopt "+k.name] {
		t.Errorf("a rotation is in %d traces, of %v", len(traces), names)
	}
	if len(sent) != 4 || len(sent[1].ResourceMetrics[0].ScopeMetrics[0].Metrics) < 15 {
		t.Errorf("metrics were sent %d times", len(sent))
	}
}

// TestTelemetryFails lets no gateway and no collector fail a rotation, or hold it up.
func TestTelemetryFails(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })
	s := newShop(t, servers.postgres.Get(t))
	s.measuredBy(server.URL)
	s.env = append(s.env, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1")
	begun := time.Now()
	r := s.run("adopt", s.name)
	if r.code != 0 || time.Since(begun) > time.Minute || !strings.Contains(r.stderr, "the Pushgateway could not be told what was measured") || !strings.Contains(r.stderr, "only http/protobuf is spoken here") {
		t.Errorf("exit %d after %s\n%s", r.code, time.Since(begun), r.stderr)
	}
}

// TestMetricsPage holds the page of the metrics, the rules and the dashboard to the names that
// the program has.
func TestMetricsPage(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(`\bkeyturn_[a-z_]+[a-z]\b`)
	names := func(files ...string) map[string]bool {
		out := map[string]bool{}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range pattern.FindAllString(string(b), -1) {
				out[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(n, "_bucket"), "_count"), "_sum")] = true
			}
		}
		return out
	}
	code := names("../telemetry/record.go", "telemeter.go")
	page := names("../../docs/metrics.md")
	for n := range code {
		if !page[n] {
			t.Errorf("docs/metrics.md does not tell of %s", n)
		}
	}
	for n := range names("../../docs/metrics.md", "../../docs/monitoring/alerts.yml", "../../docs/monitoring/dashboard.json") {
		if !code[n] {
			t.Errorf("nothing measures %s", n)
		}
	}
}
