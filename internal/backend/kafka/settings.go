package kafka

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Settings is the section "kafka" of a credential in the configuration: principals in turn, or
// the mechanisms of one, and as whom Kafka is asked.
type Settings struct {
	// Brokers holds host:port of every broker, as the administrator reaches it. Each is asked
	// by itself.
	Brokers []string `yaml:"brokers"`

	// Admin is the administrator's user of SCRAM, AdminPassword says where its password
	// stands, and AdminMechanism is its mechanism. Default: SCRAM-SHA-512.
	Admin          string        `yaml:"admin"`
	AdminPassword  secret.Source `yaml:"admin-password"`
	AdminMechanism string        `yaml:"admin-mechanism"`

	// CA is the path of the PEM file with the authority that signs the certificates of the
	// brokers. Empty means the system's.
	CA string `yaml:"ca"`

	// Probe holds host:port of every broker, as services reach it. Default: the brokers.
	Probe []string `yaml:"probe"`

	// Principals are the users that versions take in turn, without "User:". Of three or more,
	// the last is kept for emergencies.
	Principals []string `yaml:"principals"`

	// Principal is the user whose mechanisms, SCRAM-SHA-256 and SCRAM-SHA-512, versions take
	// in turn. Its ACLs and quotas stay as they are.
	Principal string `yaml:"principal"`

	// Mechanism is that of the services; with Principal, that of the first version. Default:
	// SCRAM-SHA-512.
	Mechanism string `yaml:"mechanism"`

	// AcceptLiveConnections is for a Principal where brokers do not ask clients to log in
	// again: a client that is connected by a password that was ended goes on.
	AcceptLiveConnections bool `yaml:"accept-live-connections"`

	// Adopt is the user that services log in as today.
	Adopt string `yaml:"adopt"`

	// RightsOf is the user whose ACLs and quotas each version takes; it needs no password.
	// Default: the one in service.
	RightsOf string `yaml:"rights-of"`

	// Topics are those that a probe looks at: a version that may not see one is unfit.
	Topics []string `yaml:"topics"`

	// InsecureTLS weakens the connections by name: "tls-1.2", "plaintext". Default: none,
	// which is verified TLS 1.3.
	InsecureTLS []string `yaml:"insecure-tls"`
}

// Section decodes and checks the section. Its error joins what the decoder says and
// a [rotation.Fault] for every problem of what was decoded all the same. No fault
// repeats a value: somebody may have written a secret in its place.
func Section(decode func(any) error) (any, error) {
	var s Settings
	err := decode(&s)
	return s, errors.Join(err, s.check())
}

// The fields of a version.
const (
	fieldUsername  = "username"
	fieldPassword  = "password"
	fieldMechanism = "mechanism"
	fieldBrokers   = "brokers" // host:port of each, with commas between
)

// Fields returns the names of the fields of every version.
func (Settings) Fields() []string {
	return []string{fieldBrokers, fieldMechanism, fieldPassword, fieldUsername}
}

// PublicFields returns the names of the fields that are no secret.
func (Settings) PublicFields() []string {
	return []string{fieldBrokers, fieldMechanism, fieldUsername}
}

// TurningFields returns the public field that changes with the password.
func (s Settings) TurningFields() []string {
	if s.Principal != "" {
		return []string{fieldMechanism}
	}
	return []string{fieldUsername}
}

// DerivedFields returns the names of the public fields that the services of today may not
// have: the configuration tells them.
func (s Settings) DerivedFields() []string { return s.PublicFields() }

// Pace returns how often the credential is rotated, and how long two of them are
// valid, unless the configuration says otherwise.
func (Settings) Pace() (every, overlap time.Duration) { return 90 * 24 * time.Hour, 24 * time.Hour }

func (s Settings) withDefaults() Settings {
	if s.Mechanism == "" {
		s.Mechanism = sha512Name
	}
	if s.AdminMechanism == "" {
		s.AdminMechanism = sha512Name
	}
	if len(s.Probe) == 0 {
		s.Probe = s.Brokers
	}
	return s
}

var (
	// nameForm is what every client takes as the name of a user, without preparing it.
	nameForm  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._@/-]{0,198}[A-Za-z0-9])?$`)
	topicForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
)

func (s Settings) check() error {
	var faults []error
	fault := func(path, tip, format string, args ...any) {
		faults = append(faults, &rotation.Fault{Path: path, Text: fmt.Sprintf(format, args...), Tip: tip})
	}
	const hint = "write them as kafka-1.example.com:9093"
	if len(s.Brokers) == 0 {
		fault("brokers", hint, "no broker is named")
	}
	for key, addresses := range map[string][]string{"brokers": s.Brokers, "probe": s.Probe} {
		for i, a := range addresses {
			if !isAddress(a) {
				fault(fmt.Sprintf("%s.%d", key, i), hint, "this is no host:port")
			} else if slices.Contains(addresses[:i], a) {
				fault(fmt.Sprintf("%s.%d", key, i), "name each once", "the same broker stands there twice")
			}
		}
	}
	users := map[string]string{"admin": s.Admin, "adopt": s.Adopt, "rights-of": s.RightsOf, "principal": s.Principal}
	if s.Admin == "" {
		fault("admin", "write the user that may change users and ACLs", "the administrator has no name")
	}
	if s.Principal != "" {
		s.checkPrincipal(fault)
	} else if s.AcceptLiveConnections {
		fault("accept-live-connections", "leave it out", "it is for one principal: of several, the one that is ended is denied everything")
	}
	if len(s.Principals) < 2 && s.Principal == "" {
		fault("principals", "write two or, better, three: [orders-a, orders-b, orders-c]", "fewer than two principals are named, and two are at work in an overlap")
	}
	for i, p := range s.Principals {
		path := fmt.Sprintf("principals.%d", i)
		users[path] = cmp.Or(p, "!") // one that is empty is none
		switch {
		case slices.Contains(s.Principals[:i], p):
			fault(path, "name each once", "the same principal stands there twice")
		case p == s.Admin:
			fault(path, "name users that are the services' alone", "the administrator would be ended")
		case p == s.RightsOf && p != "":
			fault("rights-of", "name a user that is none of principals", "a principal that is ended would be the model")
		}
	}
	for path, name := range users {
		if name != "" && !nameForm.MatchString(name) {
			fault(path, `at most 200 of A-Z a-z 0-9 . _ @ / -, a letter or a digit at both ends, and no "User:"`, "this cannot be the name of a user here")
		}
	}
	if tip, problem := s.AdminPassword.Problem(); problem != "" {
		fault("admin-password", tip, "the administrator's password %s", problem)
	}
	for path, name := range map[string]string{"mechanism": s.Mechanism, "admin-mechanism": s.AdminMechanism} {
		if _, known := mechanisms[name]; name != "" && !known {
			fault(path, "known are "+sha256Name+" and "+sha512Name, "unknown mechanism")
		}
	}
	for i, name := range s.Topics {
		if !topicForm.MatchString(name) || name == "." || name == ".." {
			fault(fmt.Sprintf("topics.%d", i), "1 to 249 of A-Z a-z 0-9 . _ -", "this cannot be the name of a topic")
		}
	}
	for i, w := range s.InsecureTLS {
		if !slices.Contains(remote.Weakenings, w) {
			fault(fmt.Sprintf("insecure-tls.%d", i), "known are "+strings.Join(remote.Weakenings, ", "), "unknown weakening")
		}
	}
	return errors.Join(faults...)
}

// checkPrincipal checks what goes with one principal.
func (s Settings) checkPrincipal(fault func(path, tip, format string, args ...any)) {
	if len(s.Principals) > 0 {
		fault("principals", "keep one of principal and principals", "versions take principals in turn, or the mechanisms of one")
	}
	if s.Principal == s.Admin {
		fault("principal", "name a user that is the services' alone", "the administrator's own password would be ended")
	}
	if s.RightsOf != "" {
		fault("rights-of", "leave it out", "the ACLs and quotas of one principal stay as they are")
	}
	if s.Adopt != "" && s.Adopt != s.Principal {
		fault("adopt", "leave it out: adopted is the principal's credential of mechanism", "the services of today are another user's")
	}
}

// isAddress reports whether a text is host:port.
func isAddress(text string) bool {
	host, port, err := net.SplitHostPort(text)
	n, bad := strconv.Atoi(port)
	return err == nil && host != "" && bad == nil && 0 < n && n < 1<<16 && !strings.ContainsAny(host, "/@ \t\n")
}
