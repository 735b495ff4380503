package certificate

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
)

// ACME says how an ACME server is asked, and how it is shown whose the names are.
type ACME struct {
	// Directory is the URL of the server's directory.
	Directory string `yaml:"directory"`

	// Account says where the private key of the account stands, in PEM form.
	Account secret.Source `yaml:"account"`

	// AgreeTerms says that the terms of service are agreed to: an account that is not
	// there yet is made.
	AgreeTerms bool `yaml:"agree-terms"`

	// Contact holds addresses of people for an account that is made.
	Contact []string `yaml:"contact"`

	// ExternalAccount says whose account is made, where the authority makes accounts for its
	// customers alone (RFC 8555, section 7.3.4).
	ExternalAccount *ExternalAccount `yaml:"external-account"`

	// CA is the path of the PEM file with the authority that signs the ACME server's own
	// certificate. Empty means the system's.
	CA string `yaml:"ca"`

	// Profile is what the server calls the kind of certificate. Empty: it chooses.
	Profile string `yaml:"profile"`

	// Rollover says that the credential is the account's key itself, which is read from the
	// folder that the target writes: account: {from-file: FOLDER/current/key}.
	Rollover bool `yaml:"rollover"`

	// HTTP01 and DNS01 are the challenges, of which one is given.
	HTTP01 *HTTP01 `yaml:"http-01"`
	DNS01  *DNS01  `yaml:"dns-01"`
}

// ExternalAccount is what an authority gives a customer, for the account that is made.
type ExternalAccount struct {
	// ID is what the authority calls the key.
	ID string `yaml:"id"`

	// Key says where the key stands, in base64url.
	Key secret.Source `yaml:"key"`
}

// HTTP01 shows whose a name is by what a web server says at port 80 of it.
type HTTP01 struct {
	// Directory is the folder that the web server serves below /.well-known/acme-challenge/.
	Directory string `yaml:"directory"`

	// Hook is a program and its arguments, which has the answer served in another way.
	Hook []string `yaml:"hook"`

	// Env holds the names of variables that the hook gets of ours.
	Env []string `yaml:"env"`
}

// DNS01 shows whose a name is by a TXT record.
type DNS01 struct {
	// Hook is a program and its arguments, which sets and removes the record.
	Hook []string `yaml:"hook"`

	// Env holds the names of variables that the hook gets of ours.
	Env []string `yaml:"env"`

	// Wait is how long after that the record is known everywhere. Default: 0s.
	Wait string `yaml:"wait"`
}

// NotBuilt names keys of later releases.
func (*ACME) NotBuilt() []string { return []string{"tls-alpn-01"} }

var (
	contactForm = regexp.MustCompile(`^[^\s@,?]+@[^\s@,?]+$`)
	profileForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
)

// checkAccount checks what an account is, and where.
func (a ACME) checkAccount(fault faultFunc) {
	if !isURL(a.Directory, "https") {
		fault("acme.directory", "write it as https://acme-v02.api.letsencrypt.org/directory", "this is no URL that begins with https:// and has no user or query")
	}
	if tip, problem := a.Account.Problem(); problem != "" {
		fault("acme.account", tip, "the key of the account %s", problem)
	}
	for i, c := range a.Contact {
		if !contactForm.MatchString(c) {
			fault(fmt.Sprintf("acme.contact.%d", i), "write it as ops@example.com", "this is no address of mail")
		}
	}
	if e := a.ExternalAccount; e != nil {
		e.check(fault)
	}
}

func (a ACME) check(names []string, fault faultFunc) {
	a.checkAccount(fault)
	if a.Profile != "" && !profileForm.MatchString(a.Profile) {
		fault("acme.profile", "the page of the authority lists them", "this cannot be the name of a profile")
	}
	wild := slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "*.") })
	address := slices.ContainsFunc(names, func(n string) bool { return net.ParseIP(n) != nil })
	const one = "write http-01: {directory: …} or dns-01: {hook: [PROGRAM]}"
	switch {
	case a.HTTP01 == nil && a.DNS01 == nil:
		fault("acme", one, "nothing says how it is shown whose the names are")
	case a.HTTP01 != nil && a.DNS01 != nil:
		fault("acme", one, "there are two kinds of challenge")
	case a.HTTP01 != nil && wild:
		fault("acme.http-01", "use dns-01", "a name with * is shown by a DNS record alone")
	case a.DNS01 != nil && address:
		fault("acme.dns-01", "use http-01", "an IP address has no DNS record")
	}
	if h := a.HTTP01; h != nil {
		if (h.Directory == "") == (len(h.Hook) == 0) {
			fault("acme.http-01", "write directory: PATH or hook: [PROGRAM]", "want one of directory and hook")
		}
		if h.Directory != "" && !filepath.IsAbs(h.Directory) {
			fault("acme.http-01.directory", "write the whole path, as the web server has it mounted", "this is no absolute path")
		}
		checkHook("acme.http-01", h.Hook, h.Env, fault)
	}
	if d := a.DNS01; d != nil {
		if len(d.Hook) == 0 {
			fault("acme.dns-01.hook", "write hook: [/usr/local/bin/dns-hook]", "no program sets the record")
		}
		checkHook("acme.dns-01", d.Hook, d.Env, fault)
		if w, err := time.ParseDuration(d.Wait); d.Wait != "" && (err != nil || w < 0 || w > time.Hour) {
			fault("acme.dns-01.wait", "write how long a record takes to be known: 30s", "this is no time from 0s to 1h")
		}
	}
}

// keyIDForm is what a key may be called: RFC 8555 wants ASCII.
var keyIDForm = regexp.MustCompile(`^[!-~]+$`)

func (e ExternalAccount) check(fault faultFunc) {
	if !keyIDForm.MatchString(e.ID) || len(e.ID) > 256 {
		fault("acme.external-account.id", "write what the authority calls the key (key ID, kid)", "this cannot be the name of a key")
	}
	if tip, problem := e.Key.Problem(); problem != "" {
		fault("acme.external-account.key", tip, "the key %s", problem)
	}
}

var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func checkHook(path string, argv, env []string, fault faultFunc) {
	if len(argv) > 0 && !filepath.IsAbs(argv[0]) {
		fault(path+".hook", "write the whole path of the program", "the program has no absolute path")
	}
	for i, name := range env {
		if !variableForm.MatchString(name) || len(name) > 128 {
			fault(fmt.Sprintf("%s.env.%d", path, i), "write the name of a variable, never what it holds", "this cannot be the name of a variable")
		}
	}
}
