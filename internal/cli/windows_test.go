package cli_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
)

// TestWindow has a cutover wait for its window: a schedule comes back, and one who
// asks is told until when. An emergency does not wait.
func TestWindow(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	if now.Hour() == 23 && now.Minute() > 50 {
		t.Skip("the test is about hours of one day, and this one ends soon")
	}
	later := now.Add(26 * time.Hour)
	s := newShop(t, servers.postgres.Get(t), fmt.Sprintf("windows: [%s 00:00-24:00]", later.Format("Mon")), "jitter: 1d")
	s.ok("adopt", s.name)
	s.ok("prepare", s.name)
	s.ok("validate", s.name)
	s.fails(3, []string{"cutover waits for a window until", "--emergency"}, "cutover", s.name)
	if out := s.ok("cutover", "--due"); !strings.Contains(out, "nothing is due") {
		t.Errorf("cutover --due outside of the window: %s", out)
	}
	if out := s.ok("rotate", "--due"); !strings.Contains(out, "window") {
		t.Errorf("rotate --due outside of the window: %s", out)
	}
	if p := s.status(); p.Current != 1 || p.Pending != 2 {
		t.Fatalf("status is %+v", p)
	}
	s.env = append(s.env, fmt.Sprintf("%s=%dm", hooks.ClockAhead, int(time.Date(later.Year(), later.Month(), later.Day(), 12, 0, 0, 0, time.UTC).Sub(now).Minutes())))
	s.ok("cutover", "--due")
	if p := s.status(); p.Current != 2 {
		t.Errorf("status is %+v", p)
	}
	var all []struct {
		Name string
		Due  time.Time
	}
	s.must(json.Unmarshal([]byte(s.ok("status", "-o", "json")), &all))
	if len(all) != 1 || all[0].Due.IsZero() {
		t.Fatalf("status: %+v", all)
	}
	first := all[0].Due
	s.must(json.Unmarshal([]byte(s.ok("status", "-o", "json")), &all))
	if left := time.Until(first); !all[0].Due.Equal(first) || left > 94*24*time.Hour || left < 87*24*time.Hour {
		t.Errorf("due %s and then %s", first, all[0].Due)
	}
}

// TestWindowInAnEmergency does not wait.
func TestWindowInAnEmergency(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t), fmt.Sprintf("windows: [%s 00:00-24:00]", time.Now().UTC().Add(72*time.Hour).Format("Mon")))
	s.ok("adopt", s.name)
	s.ok("prepare", s.name)
	s.ok("validate", s.name)
	s.ok("cutover", "--emergency", s.name)
	if p := s.status(); p.Current != 2 {
		t.Errorf("status is %+v", p)
	}
}
