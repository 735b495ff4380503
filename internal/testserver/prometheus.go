package testserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// NewPushgateway starts a Prometheus Pushgateway as long as the test runs, and returns its URL.
func NewPushgateway(t testing.TB) string {
	t.Helper()
	at := startMonitor(t, "prometheus-pushgateway", func(addr, _ string) []string {
		return []string{"--web.listen-address=" + addr}
	})
	return "http://" + at
}

// A Prometheus evaluates rules, and scrapes one target every second.
type Prometheus struct{ addr string }

// NewPrometheus starts a Prometheus as long as the test runs. It keeps the labels of what it
// scrapes, as a Pushgateway needs it.
func NewPrometheus(t testing.TB, target, rules string) *Prometheus {
	t.Helper()
	u, err := url.Parse(target)
	Require(t, err)
	return &Prometheus{addr: startMonitor(t, "prometheus", func(addr, dir string) []string {
		config := filepath.Join(dir, "prometheus.yml")
		Require(t, os.WriteFile(config, []byte(fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - {job_name: pushgateway, honor_labels: true, static_configs: [{targets: [%q]}]}
`, rules, u.Host)), 0o600))
		return []string{"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + addr}
	})}
}

// Query returns the values of an instant query, by their labels as JSON.
func (p *Prometheus) Query(ctx context.Context, expr string) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking Prometheus: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("reading Prometheus' answer: %w", err)
	}
	if answer.Error != "" {
		return nil, errors.New("Prometheus: " + answer.Error)
	}
	out := map[string]string{}
	for _, r := range answer.Data.Result {
		labels, err := json.Marshal(r.Metric)
		if err != nil {
			return nil, err
		}
		out[string(labels)] = fmt.Sprint(r.Value[1])
	}
	return out, nil
}

// startMonitor starts a server of Debian's that says /-/ready, and returns its address.
func startMonitor(t testing.TB, name string, args func(addr, dir string) []string) string {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		Require(t, fmt.Errorf("no %s on the PATH, run .ci/install: %w", name, ErrMissing))
	}
	port, err := freePort("tcp", "127.0.0.1")
	Require(t, err)
	addr, dir := fmt.Sprintf("127.0.0.1:%d", port), t.TempDir()
	cmd := exec.Command(program, args(addr, dir)...)
	cmd.Dir = dir
	p, err := startProcess(cmd, filepath.Join(dir, "log"))
	Require(t, err)
	t.Cleanup(p.kill)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + addr + "/-/ready")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return addr
			}
		}
		if !p.running() || time.Now().After(end) {
			t.Fatalf("%s is not ready: %s", name, tailOf(filepath.Join(dir, "log")))
		}
	}
}
