package telemetry_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/internal/testserver"
)

type jsonText = json.RawMessage

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// rules is the file of the alerts.
func rules(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../docs/monitoring/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// well is what is measured while all is well; by is for how long.
func well(by time.Duration) map[string]string {
	n := int(by.Minutes())
	still := func(v string) string { return fmt.Sprintf("%s+0x%d", v, n) }
	now := fmt.Sprintf("0+60x%d", n)
	return map[string]string{
		`keyturn_last_run_timestamp_seconds{environment="e",command="check"}`:                              now,
		`keyturn_last_run_timestamp_seconds{environment="e",command="plan"}`:                               now,
		`keyturn_last_run_exit_code{environment="e",command="check"}`:                                      still("0"),
		`keyturn_last_run_exit_code{environment="e",command="cutover"}`:                                    still("3"),
		`keyturn_last_run_exit_code{environment="e",command="prepare"}`:                                    still("130"),
		`keyturn_phase_failing{environment="e",credential="db",phase="cutover"}`:                           still("0"),
		`keyturn_rollbacks_total{environment="e",credential="db",reason="automatic"}`:                      still("4"),
		`keyturn_rollbacks_total{environment="e",credential="db",reason="asked"}`:                          fmt.Sprintf("0+1x%d", n),
		`keyturn_failed_logins_total{environment="e",credential="db"}`:                                     still("7"),
		`keyturn_unhealthy_task_seconds_total{environment="e",credential="db",service="api"}`:              still("2.5"),
		`keyturn_health_check_slowest_seconds{environment="e",credential="db",service="api"}`:              still("30"),
		`keyturn_rotation_duration_seconds_count{environment="e",credential="db",status="done"}`:           fmt.Sprintf("0+1x%d", n),
		`keyturn_rotation_duration_seconds_bucket{environment="e",credential="db",status="done",le="300"}`: fmt.Sprintf("0+1x%d", n),
		`keyturn_due_timestamp_seconds{environment="e",credential="db"}`:                                   fmt.Sprintf("3600+60x%d", n),
		`keyturn_overlap_end_timestamp_seconds{environment="e",credential="db"}`:                           fmt.Sprintf("-21000+60x%d", n),
		`keyturn_rotation_open_since_timestamp_seconds{environment="e",credential="db",phase="validate"}`:  fmt.Sprintf("-604000+60x%d", n),
		`keyturn_rotation_open_since_timestamp_seconds{environment="e",credential="x",phase="cutover"}`:    still("-9000000"),
		`keyturn_approvals_waiting{environment="e",credential="db"}`:                                       still("0"),
		`keyturn_retirement_queue_oldest_timestamp_seconds{environment="e",credential="db"}`:               fmt.Sprintf("-86000+60x%d", n),
		`keyturn_check_findings{environment="e",credential="db",level="problem"}`:                          still("0"),
		`keyturn_check_findings{environment="e",credential="db",level="warning"}`:                          still("3"),
	}
}

// TestAlerts has every alert fire by what it is for, alone, and none while all is well.
func TestAlerts(t *testing.T) {
	t.Parallel()
	if out, err := testserver.Promtool(t, "check", "rules", rules(t)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const hours = 2 * time.Hour
	testserver.Firing(t, rules(t), well(hours), hours)
	const step = "0+0x90 1+0x30" // after 90 minutes
	shown := []string{"KeyturnAbsent"}
	testserver.Firing(t, rules(t), nil, hours, "KeyturnAbsent")
	for alert, c := range map[string]struct {
		series, values string
		by             time.Duration
		also           []string
	}{
		"KeyturnPhaseFailing":    {`keyturn_phase_failing{environment="e",credential="db",phase="cutover"}`, step, hours, nil},
		"KeyturnRunFailed":       {`keyturn_last_run_exit_code{environment="e",command="cutover"}`, "4+0x120", hours, nil},
		"KeyturnRecordNotIntact": {`keyturn_last_run_exit_code{environment="e",command="check"}`, "5+0x120", hours, nil},
		"KeyturnRolledBack":      {`keyturn_rollbacks_total{environment="e",credential="db",reason="automatic"}`, step, hours, nil},
		"KeyturnLoginsFailed":    {`keyturn_failed_logins_total{environment="e",credential="db"}`, step, hours, nil},
		"KeyturnTasksUnhealthy":  {`keyturn_unhealthy_task_seconds_total{environment="e",credential="db",service="api"}`, step, hours, nil},
		"KeyturnHealthCheckSlow": {`keyturn_health_check_slowest_seconds{environment="e",credential="db",service="api"}`, "31+0x120", hours, nil},
		"KeyturnRotationSlow":    {`keyturn_rotation_duration_seconds_bucket{environment="e",credential="db",status="done",le="300"}`, "0+0x120", hours, nil},
		"KeyturnOverdue":         {`keyturn_due_timestamp_seconds{environment="e",credential="db"}`, "-82000+0x120", hours, nil},
		"KeyturnCleanupLate":     {`keyturn_overlap_end_timestamp_seconds{environment="e",credential="db"}`, "-20000+0x120", hours, nil},
		"KeyturnRotationOpen":    {`keyturn_rotation_open_since_timestamp_seconds{environment="e",credential="db",phase="validate"}`, "-600000+0x120", hours, nil},
		"KeyturnApprovalWaits":   {`keyturn_approvals_waiting{environment="e",credential="db"}`, "1+0x1500", 25 * time.Hour, nil},
		"KeyturnRetirementQueue": {`keyturn_retirement_queue_oldest_timestamp_seconds{environment="e",credential="db"}`, "-82000+0x120", hours, nil},
		"KeyturnCheckFound":      {`keyturn_check_findings{environment="e",credential="db",level="problem"}`, step, hours, nil},
		"KeyturnCheckSilent":     {`keyturn_last_run_timestamp_seconds{environment="e",command="check"}`, "-90000+0x120", hours, nil},
	} {
		t.Run(alert, func(t *testing.T) {
			series := well(c.by)
			if _, known := series[c.series]; !known {
				t.Fatalf("nobody measures %s while all is well", c.series)
			}
			series[c.series] = c.values
			testserver.Firing(t, rules(t), series, c.by, append(c.also, alert)...)
		})
		shown = append(shown, alert)
	}
	series := well(hours)
	for name := range series {
		if strings.HasPrefix(name, "keyturn_last_run_timestamp_seconds") {
			series[name] = "-7000+0x120"
		}
	}
	testserver.Firing(t, rules(t), series, hours, "KeyturnSilent")
	shown = append(shown, "KeyturnSilent")

	text, err := os.ReadFile(rules(t))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert != "" && !slices.Contains(shown, r.Alert) {
				t.Errorf("nothing shows that %s fires", r.Alert)
			}
		}
	}
}
