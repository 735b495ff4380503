package kafka_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
)

func TestSettings(t *testing.T) {
	const good = "brokers: [\"kafka-1.example.com:9093\"]\nadmin: keyturn\nadmin-password: {from-env: A}\nprincipals: [orders-a, orders-b]\n"
	if _, err := kafka.Section(rotationtest.Decoder(good)); err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := kafka.Section(rotationtest.Decoder(strings.Replace(good, "principals: [orders-a, orders-b]", "principal: orders\nadopt: orders\naccept-live-connections: true", 1))); err != nil {
		t.Fatalf("%v", err)
	}
	const canary = "canary-3b9f"
	without := func(key string) string {
		var lines []string
		for line := range strings.Lines(good) {
			if !strings.HasPrefix(line, key+":") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	rotationtest.Refuses(t, kafka.Section, canary, map[string][3]string{
		"no broker":            {without("brokers"), "brokers", "no broker is named"},
		"no port":              {without("brokers") + "brokers: [" + canary + "]", "brokers.0", "no host:port"},
		"a URL":                {without("brokers") + "brokers: [\"kafka://u:" + canary + "@kafka:9093\"]", "brokers.0", "no host:port"},
		"a broker twice":       {without("brokers") + "brokers: [\"kafka:9093\", \"kafka:9093\"]", "brokers.1", "stands there twice"},
		"a probe without port": {good + "probe: [kafka]", "probe.0", "no host:port"},
		"no administrator":     {without("admin"), "admin", "has no name"},
		"no password":          {without("admin-password"), "admin-password", "has no place"},
		"two passwords":        {without("admin-password") + "admin-password: {from-env: A, from-file: /b}", "admin-password", "has two places"},
		"no principals":        {without("principals"), "principals", "fewer than two"},
		"one principal":        {without("principals") + "principals: [orders-a]", "principals", "fewer than two"},
		"a principal twice":    {without("principals") + "principals: [orders-a, orders-a]", "principals.1", "stands there twice"},
		"with User":            {without("principals") + "principals: [\"User:" + canary + "\", orders-b]", "principals.0", "cannot be the name of a user"},
		"an empty one":         {without("principals") + "principals: [orders-a, \"\"]", "principals.1", "cannot be the name of a user"},
		"the administrator":    {without("principals") + "principals: [orders-a, keyturn]", "principals.1", "the administrator would be ended"},
		"the model":            {good + "rights-of: orders-b", "rights-of", "the model"},
		"mechanism":            {good + "mechanism: " + canary, "mechanism", "unknown mechanism"},
		"admin's mechanism":    {good + "admin-mechanism: PLAIN", "admin-mechanism", "unknown mechanism"},
		"adopt":                {good + "adopt: \"" + canary + " x\"", "adopt", "cannot be the name of a user"},
		"topic":                {good + "topics: [\"a b\"]", "topics.0", "cannot be the name of a topic"},
		"weakening":            {good + "insecure-tls: [no-verify]", "insecure-tls.0", "unknown weakening"},
		"both":                 {good + "principal: orders", "principals", "or the mechanisms of one"},
		"one, of Keyturn":      {without("principals") + "principal: keyturn", "principal", "own password would be ended"},
		"one, with User":       {without("principals") + "principal: \"User:" + canary + "\"", "principal", "cannot be the name of a user"},
		"one, with a model":    {without("principals") + "principal: orders\nrights-of: " + canary, "rights-of", "stay as they are"},
		"one, another adopted": {without("principals") + "principal: orders\nadopt: " + canary, "adopt", "another user's"},
		"several, accepting":   {good + "accept-live-connections: true", "accept-live-connections", "denied everything"},
		"unknown key":          {good + "principles: [a]", "", "principles"},
	})
}

func TestNew(t *testing.T) {
	s := kafka.Settings{Brokers: []string{"127.0.0.1:1"}, Admin: "keyturn", AdminPassword: secret.Source{Env: "A"}, CA: "ca.pem", Principals: []string{"a", "b"}}
	if _, err := kafka.New(s, kafka.Options{Options: remote.Options{CA: []byte("no certificate")}}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("an authority that is none: %v, want it to be invalid", err)
	}
	if _, err := kafka.New(kafka.Settings{}, kafka.Options{}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("settings without anything: %v, want them to be invalid", err)
	}
	b, err := kafka.New(s, kafka.Options{Options: remote.Options{Getenv: func(string) string { return "" }}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Observe(t.Context(), rotation.Version{Identity: "a", Number: 1}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("without the administrator's password: %v, want it to be invalid", err)
	}
}
