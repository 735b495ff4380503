package config_test

import (
	"encoding/json"
	"errors"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/config"
	"github.com/keyturn/keyturn/internal/secret"
)

var update = flag.Bool("update", false, "write the golden files anew")

// settings is the section of a backend like those that Keyturn has.
type settings struct {
	Admin    string        `yaml:"admin"`
	Password secret.Source `yaml:"admin-password"`
	CA       string        `yaml:"ca"`
	Role     string        `yaml:"role"`
	Logins   []string      `yaml:"logins"`
	Probe    []string      `yaml:"probe"`
}

func (*settings) Fields() []string       { return []string{"username", "password", "host"} }
func (*settings) PublicFields() []string { return []string{"username", "host"} }

type fault struct{ key, text, hint string }

func (f fault) Error() string { return f.text }
func (f fault) Key() string   { return f.key }
func (f fault) Hint() string  { return f.hint }

func section(decode func(any) error) (any, error) {
	s := &settings{}
	if err := decode(s); err != nil {
		return s, err
	}
	var errs []error
	if s.Role == "" {
		errs = append(errs, fault{"", "there is no role", "name the role whose rights the logins take"})
	}
	for i, probe := range append([]string{s.Admin}, s.Probe...) {
		key := "admin"
		if i > 0 {
			key = "probe." + string(rune('0'+i-1))
		}
		u, err := url.Parse(probe)
		if err != nil {
			errs = append(errs, fault{key, "not a URL", ""})
		} else if _, has := u.User.Password(); has {
			errs = append(errs, fault{key, "a password never stands in a URL", "write admin-password: {from-env: NAME}"})
		}
	}
	return s, errors.Join(errs...)
}

var backends = map[string]config.Section{"postgres": section}

func TestGolden(t *testing.T) {
	for _, kind := range []string{"ok", "err"} {
		files, err := filepath.Glob("testdata/" + kind + "/*.yml")
		if err != nil || len(files) == 0 {
			t.Fatalf("no golden files of kind %q: %v", kind, err)
		}
		for _, file := range files {
			t.Run(kind+"/"+filepath.Base(file), func(t *testing.T) { golden(t, kind, file) })
		}
	}
}

func golden(t *testing.T, kind, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse(filepath.Base(file), b, backends)
	if (err == nil) != (kind == "ok") {
		t.Fatalf("Parse(%q) = %v, want it to be %s", file, err, kind)
	}
	got, want := "", strings.TrimSuffix(file, ".yml")
	if err != nil {
		got, want = err.Error()+"\n", want+".txt"
		for _, planted := range []string{"hunter2", "s3cr3t-canary"} {
			if strings.Contains(got, planted) {
				t.Errorf("Parse(%q) repeats a secret: %s", file, got)
			}
		}
	} else {
		j, err := json.MarshalIndent(cfg, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got, want = string(j)+"\n", want+".json"
	}
	if *update {
		if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expected, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(expected), got); diff != "" {
		t.Errorf("Parse(%q) differs from %s (-want +got):\n%s", file, want, diff)
	}
}

func TestEveryFaultHasAPlace(t *testing.T) {
	files, _ := filepath.Glob("testdata/err/*.yml")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = config.Parse(file, b, backends)
		faults, ok := errors.AsType[config.Faults](err)
		if !ok {
			t.Fatalf("Parse(%q) = %v, want Faults", file, err)
		}
		for _, f := range faults {
			if lines := strings.Count(string(b), "\n") + 1; f.Line < 1 || f.Line > lines || f.Column < 1 || f.Msg == "" {
				t.Errorf("Parse(%q): %+v has no place", file, f)
			}
		}
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]string{"90d": "90d", "36h": "1d12h", "1d12h": "1d12h", "90s": "1m30s", "500ms": "500ms", "0s": "0s"} {
		d, err := config.ParseDuration(s)
		if err != nil || config.FormatDuration(d) != want {
			t.Errorf("ParseDuration(%q) = %s, %v, want %s", s, config.FormatDuration(d), err, want)
		}
	}
	for _, s := range []string{"", "1w", "5", "-1h", "1.5h", "h", "99999999999999999999d", "9999999999d9999999999d", "12h1d",
		"3651d", "3650d1ms", "2h-1m", "1d1d", " 1d", "1d\n", "9223372036854775807ms"} {
		if d, err := config.ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", s, d)
		}
	}
}

func TestFormatDurationAlwaysSaysSomething(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 3650 * 24 * time.Hour: "3650d", 25 * time.Hour: "1d1h", time.Second + time.Millisecond: "1s1ms",
		-time.Hour: "-1h0m0s", time.Microsecond: "1µs", time.Second + time.Nanosecond: "1.000000001s",
	} {
		if got := config.FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %q, want %q", int64(d), got, want)
		}
	}
}

// TestDurationsGoThereAndBack formats what it reads and reads what it formats.
func TestDurationsGoThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, 3650*24*3600*1000).Draw(t, "ms")) * time.Millisecond
		if got, err := config.ParseDuration(config.FormatDuration(d)); err != nil || got != d {
			t.Fatalf("ParseDuration(%q) = %d, %v, want %d", config.FormatDuration(d), got, err, d)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/ok/*.yml", "testdata/err/*.yml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			if b, err := os.ReadFile(file); err == nil {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg, err := config.Parse("f.yml", b, backends)
		if err == nil && (cfg == nil || len(cfg.Credentials) == 0) {
			t.Fatal("no credential, and no error")
		}
		if err == nil {
			return
		}
		faults, ok := errors.AsType[config.Faults](err)
		if !ok || len(faults) == 0 {
			t.Fatalf("%v is no Faults", err)
		}
		printable(t, err)
		for _, fault := range faults {
			if fault.Line < 1 || fault.Column < 1 {
				t.Fatalf("%v has no place", fault)
			}
		}
	})
}
