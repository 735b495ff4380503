package certificate

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// Settings is the section "certificate" of a credential in the configuration: a
// certificate for servers, and who issues it.
type Settings struct {
	// Names holds the DNS names and IP addresses that the certificate is for: these, and
	// no other. The first one is what services are asked for by probes.
	Names []string `yaml:"names"`

	// ACME says that an ACME server (RFC 8555) issues it.
	ACME *ACME `yaml:"acme"`

	// Vault says that the PKI engine of a Vault issues it.
	Vault *Vault `yaml:"vault"`

	// Roots is the path of the PEM file with the authorities that clients of the services
	// trust. Empty means the system's.
	Roots string `yaml:"roots"`

	// KeyType is what kind of key is made: "ecdsa-p256" (the default), "ecdsa-p384",
	// "rsa-2048", "rsa-3072", "rsa-4096".
	KeyType string `yaml:"key-type"`

	// Probe holds where services serve the certificate, as tls://HOST:PORT. Every address
	// that the host has is asked: tasks.NAME has one for each task of a service.
	Probe []string `yaml:"probe"`

	// CRL is the URL of the authority's list of revoked certificates, where what it issues
	// names none and no OCSP responder either.
	CRL string `yaml:"crl"`

	// Adopt is the path of the PEM file with the certificate that services serve today.
	Adopt string `yaml:"adopt"`

	// Trigger says who is told to issue it, where another system makes it and keeps it:
	// "cert-manager".
	Trigger string `yaml:"trigger"`

	// CertManager is there if that is cert-manager.
	CertManager *CertManager `yaml:"cert-manager"`
}

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
func (*Settings) NotBuilt() []string { return []string{"step-ca", "rotate-ca"} }

// NotBuilt names keys of later releases.
func (*ACME) NotBuilt() []string { return []string{"tls-alpn-01", "rollover"} }

// Section decodes and checks the section. Its error joins what the decoder says and
// a [rotation.Fault] for every problem of what was decoded all the same. No fault
// repeats a value: somebody may have written a secret in its place.
func Section(decode func(any) error) (any, error) {
	var s Settings
	err := decode(&s)
	return s, errors.Join(err, s.check())
}

// The fields of a version, in PEM form.
const (
	fieldCertificate = "certificate" // with the chain to the root, without it
	fieldKey         = "key"
)

// Fields returns the names of the fields of every version.
func (s Settings) Fields() []string {
	if s.Trigger != "" {
		return nil // no service of ours reads them
	}
	return []string{fieldCertificate, fieldKey}
}

// PublicFields returns the names of the fields that are no secret. A certificate is none,
// and is a file all the same: it is mounted together with its key.
func (Settings) PublicFields() []string { return nil }

// DerivedFields returns the names of the fields that the services of today may not have.
func (Settings) DerivedFields() []string { return nil }

// Pace returns how often the credential is rotated, and how long two of them are
// valid, unless the configuration says otherwise. It is due at two thirds of its life, too.
func (Settings) Pace() (every, overlap time.Duration) { return 365 * 24 * time.Hour, 48 * time.Hour }

// DueAt returns when a version is due by itself: at two thirds of its life; the zero time
// if that is not on its record.
func (Settings) DueAt(v rotation.Version) time.Time {
	from, err1 := time.Parse(time.RFC3339, v.Public[publicFrom])
	until, err2 := time.Parse(time.RFC3339, v.Public[publicUntil])
	if err1 != nil || err2 != nil {
		return time.Time{}
	}
	return from.Add(until.Sub(from) / 3 * 2).UTC()
}

const (
	ecdsaP256 = "ecdsa-p256"
	ecdsaP384 = "ecdsa-p384"
	rsa2048   = "rsa-2048"
	rsa3072   = "rsa-3072"
	rsa4096   = "rsa-4096"
)

var keyTypes = []string{ecdsaP256, ecdsaP384, rsa2048, rsa3072, rsa4096}

const maxNames = 100 // what Let's Encrypt takes in one certificate

var (
	labels      = `[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?`
	nameForm    = regexp.MustCompile(`^(\*\.)?(` + labels + `\.)*` + labels + `$`)
	contactForm = regexp.MustCompile(`^[^\s@,?]+@[^\s@,?]+$`)
	profileForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
)

type faultFunc func(path, tip, format string, args ...any)

func (s Settings) check() error {
	var faults []error
	fault := func(path, tip, format string, args ...any) {
		faults = append(faults, &rotation.Fault{Path: path, Text: fmt.Sprintf(format, args...), Tip: tip})
	}
	s.checkNames(fault)
	managed := s.Trigger != "" || s.CertManager != nil
	switch {
	case managed:
		s.checkManaged(fault)
	case s.ACME == nil && s.Vault == nil:
		fault("acme", "write acme: {directory: https://acme-v02.api.letsencrypt.org/directory, …} or vault: {servers: […], …}", "nothing says who issues it")
	case s.ACME != nil && s.Vault != nil:
		fault("vault", "keep one of acme and vault", "there are two who issue it")
	}
	if s.ACME != nil && !managed {
		s.ACME.check(s.Names, fault)
	}
	if s.Vault != nil && !managed {
		s.Vault.check(fault)
	}
	if s.KeyType != "" && !slices.Contains(keyTypes, s.KeyType) {
		fault("key-type", "known are "+strings.Join(keyTypes, ", "), "unknown kind of key")
	}
	for i, p := range s.Probe {
		if _, _, err := splitProbe(p); err != nil {
			fault(fmt.Sprintf("probe.%d", i), "write it as tls://tasks.orders_web:8443", "this is no tls://HOST:PORT")
		} else if slices.Contains(s.Probe[:i], p) {
			fault(fmt.Sprintf("probe.%d", i), "name each once", "the same place stands there twice")
		}
	}
	if s.CRL != "" && !isURL(s.CRL, "http", "https") {
		fault("crl", "write it as http://ca.example.com/crl", "this is no URL that begins with http:// or https:// and has no user or query")
	}
	return errors.Join(faults...)
}

func (s Settings) checkNames(fault faultFunc) {
	if len(s.Names) == 0 {
		fault("names", "write names: [orders.example.com]", "no name is given")
	}
	if len(s.Names) > maxNames {
		fault("names", "make several certificates of them", "there are more than %d names", maxNames)
	}
	for i, n := range s.Names {
		switch {
		case net.ParseIP(n) != nil && net.ParseIP(n).String() == n:
		case !nameForm.MatchString(n) || len(n) > 253 || net.ParseIP(n) != nil || onlyDigits(n):
			fault(fmt.Sprintf("names.%d", i), "write a DNS name in small letters (others than a-z as xn--…), *.NAME, or an IP address", "this is no name that a certificate can have")
		}
		if slices.Contains(s.Names[:i], n) {
			fault(fmt.Sprintf("names.%d", i), "name each once", "the same name stands there twice")
		}
	}
}

// onlyDigits reports whether the last label is a number, as of an address that is none.
func onlyDigits(name string) bool {
	last := name[strings.LastIndex(name, ".")+1:]
	return strings.Trim(last, "0123456789") == ""
}

func (a ACME) check(names []string, fault faultFunc) {
	if !isURL(a.Directory, "https") {
		fault("acme.directory", "write it as https://acme-v02.api.letsencrypt.org/directory", "this is no URL that begins with https:// and has no user or query")
	}
	switch {
	case a.Account.IsZero():
		fault("acme.account", "write {from-env: NAME} or {from-file: PATH}", "the key of the account has no place")
	case a.Account.Env != "" && a.Account.File != "":
		fault("acme.account", "keep one of from-env and from-file", "the key of the account has two places")
	}
	for i, c := range a.Contact {
		if !contactForm.MatchString(c) {
			fault(fmt.Sprintf("acme.contact.%d", i), "write it as ops@example.com", "this is no address of mail")
		}
	}
	if e := a.ExternalAccount; e != nil {
		e.check(fault)
	}
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
var keyIDForm = regexp.MustCompile(`^[!-~]{1,256}$`)

func (e ExternalAccount) check(fault faultFunc) {
	if !keyIDForm.MatchString(e.ID) {
		fault("acme.external-account.id", "write what the authority calls the key (key ID, kid)", "this cannot be the name of a key")
	}
	switch {
	case e.Key.IsZero():
		fault("acme.external-account.key", "write {from-env: NAME} or {from-file: PATH}", "the key has no place")
	case e.Key.Env != "" && e.Key.File != "":
		fault("acme.external-account.key", "keep one of from-env and from-file", "the key has two places")
	}
}

var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

func checkHook(path string, argv, env []string, fault faultFunc) {
	if len(argv) > 0 && !filepath.IsAbs(argv[0]) {
		fault(path+".hook", "write the whole path of the program", "the program has no absolute path")
	}
	for i, name := range env {
		if !variableForm.MatchString(name) {
			fault(fmt.Sprintf("%s.env.%d", path, i), "write the name of a variable, never what it holds", "this cannot be the name of a variable")
		}
	}
}

// isURL reports whether a text is a URL of one of the schemes, with nothing in it that may
// be secret.
func isURL(text string, schemes ...string) bool {
	u, err := url.Parse(text)
	return err == nil && slices.Contains(schemes, u.Scheme) && u.Hostname() != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// splitProbe parts tls://HOST:PORT.
func splitProbe(text string) (host, port string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "tls" || u.Hostname() == "" || u.Port() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", "", errors.New("it is no tls://HOST:PORT")
	}
	return u.Hostname(), u.Port(), nil
}
