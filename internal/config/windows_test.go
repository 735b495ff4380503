package config_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/config"
)

// windowsOf parses windows as a configuration has them.
func windowsOf(t interface{ Fatal(...any) }, texts ...string) []config.Window {
	b := `version: 1
directory: {path: /srv}
credentials:
  c:
    fake: {}
    windows: [`
	for _, text := range texts {
		b += `"` + text + `", `
	}
	cfg, err := config.Parse("c.yml", []byte(b+"]\n"), map[string]config.Section{"fake": func(decode func(any) error) (any, error) {
		var s struct{}
		return s, decode(&s)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Credentials[0].Windows
}

func TestOpens(t *testing.T) {
	at := func(s string) time.Time {
		parsed, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for _, c := range []struct {
		windows   []string
		now, want string
	}{
		{nil, "2026-11-25T03:00:00Z", "2026-11-25T03:00:00Z"},
		{[]string{"Mon-Fri 08:00-16:00"}, "2026-11-25T08:00:00Z", "2026-11-25T08:00:00Z"}, // a Wednesday
		{[]string{"Mon-Fri 08:00-16:00"}, "2026-11-25T07:59:59Z", "2026-11-25T08:00:00Z"},
		{[]string{"Mon-Fri 08:00-16:00"}, "2026-11-25T16:00:00Z", "2026-11-26T08:00:00Z"},
		{[]string{"Mon-Fri 08:00-16:00"}, "2026-11-27T16:00:00Z", "2026-11-30T08:00:00Z"}, // over a weekend
		{[]string{"Mon-Fri 08:00-16:00"}, "2026-11-25T10:30:00+03:00", "2026-11-25T08:00:00Z"},
		{[]string{"Sat-Mon 22:00-24:00"}, "2026-11-29T23:59:59Z", "2026-11-29T23:59:59Z"},
		{[]string{"Sat-Mon 22:00-24:00"}, "2026-12-01T00:00:00Z", "2026-12-05T22:00:00Z"},
		{[]string{"Wed 08:00-09:00"}, "2026-11-25T09:00:00Z", "2026-12-02T08:00:00Z"},
		{[]string{"Wed 08:00-09:00", "daily 23:00-24:00"}, "2026-11-25T09:00:00Z", "2026-11-25T23:00:00Z"},
		{[]string{"daily 02:00-03:00"}, "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"}, // an hour that clocks in Europe skip
	} {
		if got := config.Opens(windowsOf(t, c.windows...), at(c.now)); !got.Equal(at(c.want)) {
			t.Errorf("at %s, %q open at %s, want %s", c.now, c.windows, got, c.want)
		}
	}
}

// TestOpensHolds shows that a window is open when it is said to open, never before,
// and that it is at most a week away. Hard problem 22.
func TestOpensHolds(t *testing.T) {
	all := windowsOf(t, "Mon-Fri 08:00-16:00", "Sat 22:00-24:00", "Sun-Mon 00:00-01:30", "daily 03:00-03:01")
	rapid.Check(t, func(r *rapid.T) {
		w := rapid.SliceOfN(rapid.SampledFrom(all), 1, 3).Draw(r, "windows")
		now := time.Unix(rapid.Int64Range(0, 4e9).Draw(r, "now"), rapid.Int64Range(0, 1e9-1).Draw(r, "ns"))
		at := config.Opens(w, now)
		open := func(t time.Time) (is bool) {
			for _, one := range w {
				is = is || one.Open(t)
			}
			return is
		}
		if at.Before(now) || at.Sub(now) > 7*24*time.Hour || !open(at) {
			r.Fatalf("%v open at %s, asked at %s", w, at, now)
		}
		if before := at.Add(-time.Nanosecond); at.After(now) && !before.Before(now) && open(before) {
			r.Fatalf("%v are open before %s", w, at)
		}
	})
}
