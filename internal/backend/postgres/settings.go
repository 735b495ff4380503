package postgres

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Settings is the section "postgres" of a credential in the configuration.
type Settings struct {
	// Admin is the URL of the administrator's connection, without a password:
	// postgres://user@host:5432[,host:5432…]/database. It names the primary and
	// every standby that accepts logins.
	Admin string `yaml:"admin"`

	// AdminPassword says where the administrator's password stands.
	AdminPassword secret.Source `yaml:"admin-password"`

	// AdminFrom is the folder of a directory target's credential that holds the
	// administrator's own login: current/username and current/password, in place of
	// AdminPassword. The user of Admin is then the role that the login acts as.
	AdminFrom string `yaml:"admin-from"`

	// CA is the path of the PEM file with the authority that signs the
	// servers' certificates. Empty means the system's.
	CA string `yaml:"ca"`

	// Role has the rights; the logins are its members. It may be the login that
	// services use today.
	Role string `yaml:"role"`

	// Strategy is how a version comes into service: "alternating" (default), where
	// logins take turns, or "single-role", where the one login that there is gets
	// another password, which is a gap.
	Strategy string `yaml:"strategy"`

	// Logins take turns; of three or more, the last one is kept for
	// emergencies. Default: role_a, role_b, role_c.
	Logins []string `yaml:"logins"`

	// Probe holds the URLs by which services reach the database, without user
	// and password. Default: the hosts and the database of Admin.
	Probe []string `yaml:"probe"`

	// Rights is by what the administrator changes logins: "functions" (default), by
	// functions that run as a role which nobody can be; "createrole", by a CREATEROLE
	// of its own, where nobody may or will make such a role.
	Rights string `yaml:"rights"`

	// Schema holds the administrator's functions. Default: keyturn.
	Schema string `yaml:"schema"`

	// InsecureTLS weakens the connections by name: "tls-1.2", "no-hostname",
	// "no-verify", "plaintext". Default: none, which is verify-full with TLS 1.3.
	InsecureTLS []string `yaml:"insecure-tls"`

	// Pins are the keys that the servers may have. Default: any that the authority
	// signed.
	Pins Pins `yaml:"pins"`

	// AllowChanged names what may change for the application when the login
	// that it adopts is no longer the one it logs in with, see [Backend.Adopt]:
	// a kind ("session-user") or one thing as the refusal names it
	// ("session-user:orders.function public.audit()").
	AllowChanged []string `yaml:"allow-changed"`
}

// Section decodes and checks the section. Its error joins what the decoder says
// and a [rotation.Fault] for every problem of what was decoded all the same. No
// fault repeats a value: somebody may have written a secret in its place.
func Section(decode func(any) error) (any, error) {
	var s Settings
	err := decode(&s)
	s = s.withDefaults()
	return s, errors.Join(err, s.check())
}

// Fields returns the names of the fields of every version.
func (Settings) Fields() []string {
	return []string{"database", "host", "password", "port", "username"}
}

// PublicFields returns the names of the fields that are no secret.
func (Settings) PublicFields() []string { return []string{"database", "host", "port", "username"} }

// Gap says what fails for a time at every cutover, or "".
func (s Settings) Gap() string {
	if s.Strategy != singleRole {
		return ""
	}
	return fmt.Sprintf("PostgreSQL knows one password of %q: from its change on, a service that has not been moved yet cannot open new connections", s.Role)
}

func (s Settings) single() bool { return s.Strategy == singleRole }

// The strategies.
const (
	alternating = "alternating"
	singleRole  = "single-role"
)

func (s Settings) withDefaults() Settings {
	if s.Strategy == "" {
		s.Strategy = alternating
	}
	if len(s.Logins) == 0 && s.Strategy == alternating && roleName.MatchString(s.Role) && !strings.HasPrefix(s.Role, "pg_") {
		s.Logins = []string{s.Role + "_a", s.Role + "_b", s.Role + "_c"}
	}
	if s.Schema == "" {
		s.Schema = "keyturn"
	}
	if s.Rights == "" {
		s.Rights = byFunctions
	}
	return s
}

// The rights.
const (
	byFunctions  = "functions"
	byCreateRole = "createrole"
)

// owner is the role that owns the functions.
func (s Settings) owner() string {
	if s.Rights == byCreateRole {
		admin, _ := parseURL(s.Admin)
		return admin.user
	}
	return s.Schema + ownerSuffix
}

const ownerSuffix = "_owner"

// roleName is what names of roles, logins and the schema may look like: what
// is safe in URLs, environment variables and pg_hba lines without quoting.
var roleName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,62}$`)

// databaseName is what the name of the administrator's database may look like.
var databaseName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`)

func (s Settings) check() error {
	var faults []error
	fault := func(path, tip, format string, args ...any) {
		faults = append(faults, &rotation.Fault{Path: path, Text: fmt.Sprintf(format, args...), Tip: tip})
	}
	s.checkURLs(fault)
	s.checkNames(fault)
	s.checkStrategy(fault)
	s.checkOwn(fault)
	switch p := s.AdminPassword; {
	case s.AdminFrom != "" && !p.IsZero():
		fault("admin-from", "keep one of admin-password and admin-from", "the administrator's password has two places")
	case s.AdminFrom != "" && !filepath.IsAbs(s.AdminFrom):
		fault("admin-from", "write an absolute path: /var/lib/keyturn/credentials/keyturn-admin", "the path is relative")
	case s.AdminFrom != "":
	default:
		if tip, problem := p.Problem(); problem != "" {
			fault("admin-password", tip, "the administrator's password %s", problem)
		}
	}
	for i, w := range s.InsecureTLS {
		if !slices.Contains(weakenings, w) {
			fault(fmt.Sprintf("insecure-tls.%d", i), "known are "+strings.Join(weakenings, ", "), "unknown weakening")
		}
	}
	s.Pins.check(fault)
	if s.Pins.Current != "" && slices.Contains(s.InsecureTLS, plaintext) {
		fault("pins", "take the pins out, or plaintext", "without TLS there is no key to pin")
	}
	for i, a := range s.AllowChanged {
		kind, _, _ := strings.Cut(a, ":")
		if !slices.Contains(changeKinds, kind) {
			fault(fmt.Sprintf("allow-changed.%d", i), "known are "+strings.Join(changeKinds, ", "), "unknown change")
		}
	}
	return errors.Join(faults...)
}

type faultFunc func(path, tip, format string, args ...any)

func (s Settings) checkURLs(fault faultFunc) {
	if s.Admin == "" {
		fault("admin", "write postgres://keyturn@host:5432/database", "the administrator's URL is missing")
	} else if e, err := parseURL(s.Admin); err != nil {
		fault("admin", err.tip, "%s", err.text)
	} else if e.user == "" {
		fault("admin", "write postgres://keyturn@host:5432/database", "the administrator's URL names no user")
	} else if !roleName.MatchString(e.user) || !databaseName.MatchString(e.database) {
		fault("admin", "letters, digits and _ . - are taken", "the administrator's URL has a user or a database with other characters")
	}
	for i, p := range s.Probe {
		path := fmt.Sprintf("probe.%d", i)
		if e, err := parseURL(p); err != nil {
			fault(path, err.tip, "%s", err.text)
		} else if e.user != "" {
			fault(path, "leave the user out: each version brings its own", "a probe's URL names a user")
		}
	}
}

func (s Settings) checkNames(fault faultFunc) {
	name := func(path, what, n string) {
		switch {
		case n == "":
			fault(path, "", "%s is missing", what)
		case !roleName.MatchString(n):
			fault(path, "1 to 63 of A-Z a-z 0-9 _ . -, the first a letter or _", "this cannot be the name of %s", what)
		case strings.HasPrefix(n, "pg_"):
			fault(path, "names with pg_ belong to PostgreSQL", "this cannot be the name of %s", what)
		}
	}
	name("role", "the role", s.Role)
	name("schema", "the schema", s.Schema)
	if s.Rights != byFunctions && s.Rights != byCreateRole {
		fault("rights", "write functions or createrole", "unknown rights")
	}
	if n := 63 - len(ownerSuffix); len(s.Schema) > n {
		fault("schema", fmt.Sprintf("at most %d characters: the owner of its functions is named after it", n), "the schema's name is too long")
	}
	admin, _ := parseURL(s.Admin)
	seen := map[string]bool{"": true}
	for i, l := range s.Logins {
		path := fmt.Sprintf("logins.%d", i)
		name(path, "a login", l)
		if seen[l] && l != "" {
			fault(path, "every login once", "the login is named twice")
		}
		if l == s.Role && l != "" && !s.single() {
			fault(path, "the logins are members of the role; an adopted login is the role itself", "the login is the role")
		}
		s.checkApart(fault, path, "the login", l, admin.user)
		seen[l] = true
	}
	if !s.Own() {
		s.checkApart(fault, "role", "the role", s.Role, admin.user)
	}
	if admin.user == s.owner() && s.Rights != byCreateRole {
		fault("admin", "choose another name: nobody may log in as that role", "the administrator is the owner of the functions")
	}
}

// Own reports whether the credential is that of the administrator itself, whose
// logins take turns like any other's.
func (s Settings) Own() bool {
	admin, err := parseURL(s.Admin)
	return err == nil && s.Role != "" && s.Role == admin.user
}

// Place returns the key that names the folder in which a credential's target must
// keep it, so that the administrator's next login is found where this one was, and
// the folder; "" for any.
func (s Settings) Place() (key, folder string) {
	if s.Own() {
		return "admin-from", s.AdminFrom
	}
	return "", ""
}

// checkOwn refuses what the administrator's own credential cannot be.
func (s Settings) checkOwn(fault faultFunc) {
	switch {
	case !s.Own():
	case s.AdminFrom == "":
		fault("role", "let another role have the rights of the application; to rotate the administrator itself, write admin-from: FOLDER in place of admin-password",
			"the role is the administrator")
	case s.single():
		fault("strategy", "leave it out", "the administrator cannot change the password that it is logged in by")
	case s.Rights == byCreateRole:
		fault("rights", "leave it out", "an administrator with CREATEROLE takes no turns")
	}
}

func (s Settings) checkStrategy(fault faultFunc) {
	switch s.Strategy {
	case alternating:
		if len(s.Logins) == 1 {
			fault("logins", "name two or three logins; three leave one for emergencies; or write strategy: single-role, which has a gap",
				"one login takes no turns")
		}
	case singleRole:
		if len(s.Logins) > 0 {
			fault("logins", "leave it out, or leave out strategy", "with strategy: single-role the role itself is the login")
		}
	default:
		fault("strategy", "write alternating, or single-role, which has a gap", "unknown strategy")
	}
}

// checkApart keeps a role of the application's from being one of Keyturn's own.
func (s Settings) checkApart(fault faultFunc, path, what, name, admin string) {
	switch name {
	case "":
	case admin:
		fault(path, "the administrator is a login of its own", "%s is the administrator", what)
	case s.owner():
		fault(path, "that role owns the functions, and nobody may be it", "%s is the owner of the functions", what)
	}
}
