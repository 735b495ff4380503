package config

import (
	"net/url"
	"regexp"

	"github.com/keyturn/keyturn/internal/secret"
)

// Telemetry says what is measured is called, and which Pushgateway is told. OpenTelemetry
// is set up by its own variables of the environment.
type Telemetry struct {
	Environment string        `yaml:"environment"` // the label of everything that is measured
	Pushgateway string        `yaml:"pushgateway"` // its URL; "" for none
	User        string        `yaml:"user"`        // of the Pushgateway
	Password    secret.Source `yaml:"password"`
}

// DefaultEnvironment is the label of what is measured where none is named.
const DefaultEnvironment = "production"

var environmentName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// pushgatewayForm is what a URL of a Pushgateway looks like, for the schema.
const pushgatewayForm = `^https?://[^/?#@\s]+(/[^?#@\s]*)?$`

// telemetry checks the section telemetry.
func (p *parser) telemetry(t *Telemetry) {
	if t == nil {
		return
	}
	n := at(p.doc, "telemetry")
	switch {
	case p.faults.touch("telemetry.environment"):
	case t.Environment == "" && child(n, "environment") == nil:
		t.Environment = DefaultEnvironment
	case !environmentName.MatchString(t.Environment):
		p.fault(at(n, "environment"), "telemetry.environment", "write: environment: production", "an environment has letters, digits and . _ - here, at most 63")
	}
	const hint = "write: pushgateway: http://pushgateway.internal:9091"
	u, err := url.Parse(t.Pushgateway)
	switch {
	case p.faults.touch("telemetry.pushgateway") || t.Pushgateway == "" && child(n, "pushgateway") == nil:
	case err != nil || !regexp.MustCompile(pushgatewayForm).MatchString(t.Pushgateway) || u.Host == "":
		p.fault(at(n, "pushgateway"), "telemetry.pushgateway", hint+"; who may push stands under user and password", "want the URL of a Pushgateway, without a login in it")
	}
	if (t.User == "") != t.Password.IsZero() && !p.faults.below("telemetry") {
		p.fault(n, "telemetry", "write: user: keyturn, and password: {from-env: KEYTURN_PUSH_PASSWORD}", "a login of the Pushgateway has a user and a password")
	}
}
