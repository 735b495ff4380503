package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/config"
)

// kept is the section of a backend whose system keeps the credential.
type kept struct {
	Name string `yaml:"name"`
}

func (kept) Elsewhere() string { return "the system keeps it" }

// one is the section of a backend of which one version is valid at a time.
type one struct {
	Name string `yaml:"name"`
}

func (one) Elsewhere() string             { return "people hold it" }
func (one) Pace() (_, none time.Duration) { return 24 * time.Hour, 0 }

// TestElsewhere needs no target, and takes nothing that is of one.
func TestElsewhere(t *testing.T) {
	const alone = "version: 1\ncredentials:\n  a:\n    system: {name: x}\n"
	sections := map[string]config.Section{"postgres": section, "system": func(decode func(any) error) (any, error) {
		var s kept
		err := decode(&s)
		return s, err
	}, "people": func(decode func(any) error) (any, error) {
		var s one
		err := decode(&s)
		return s, err
	}}
	held := strings.Replace(alone, "system:", "people:", 1)
	parse := func(text string) (*config.Config, error) { return config.Parse("f.yml", []byte(text), sections) }
	for text, want := range map[string][]bool{ // a swarm, a directory
		alone:                                 {false, false},
		held:                                  {false, false},
		"directory: {path: /srv/c}\n" + alone: {false, true},
		"swarm: {image: \"x:1\"}\n" + alone:   {true, false},
		alone + "  b:\n    postgres: {admin: postgres://k@db/x, role: x}\n    services: {api: {file: {P: password}}}\n": {true, false},
	} {
		cfg, err := parse(text)
		if err != nil {
			t.Errorf("%s\n%v", text, err)
			continue
		}
		if got := []bool{cfg.Swarm != nil, cfg.Directory != nil}; !cmp.Equal(got, want) {
			t.Errorf("%s\na swarm and a directory: %v, want %v", text, got, want)
		}
		full, err := cfg.Full()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(string(full))
		if diff := cmp.Diff(cfg, again); err != nil || diff != "" {
			t.Errorf("written in full it is another one: %v\n%s\n%s", err, diff, full)
		}
	}
	for _, line := range []string{"services: {api: {file: {P: password}}}", "secrets: {password: x}", "render: {x: y}", "stack: {name: x}", "ignore: [{service: a, reason: b}]",
		"restart: [/bin/true]", "mounts: dual", "rollout: {monitor: 3s}", "through: swarm"} {
		key, _, _ := strings.Cut(line, ":")
		_, err := parse(alone + "    " + line + "\n")
		if err == nil || !strings.Contains(err.Error(), "credentials.a."+key+": no target has the credential: the system keeps it\nhint: leave it out") {
			t.Errorf("%s: %v, want it refused", line, err)
		}
	}
	for _, line := range []string{"overlap: 1h", "grace: 1h", "bound: 2d", "expiry: strict"} {
		if _, err := parse(held + "    " + line + "\n"); err == nil || !strings.Contains(err.Error(), "one version is valid at a time: people hold it\nhint: leave it out") {
			t.Errorf("%s: %v, want it refused", line, err)
		}
	}
	if _, err := parse(held + "    approve: {cutover: {pull-request: true}}\n"); err == nil || !strings.Contains(err.Error(), "no stack file that a pull request could change") {
		t.Errorf("a pull request: %v, want it refused", err)
	}
	if _, err := parse("actions-secrets: {repository: acme/orders}\n" + alone); err == nil || !strings.Contains(err.Error(), "the others are secrets of GitHub") {
		t.Errorf("beside secrets of GitHub: %v, want it refused", err)
	}
}
