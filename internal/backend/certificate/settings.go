package certificate

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
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

	// StepCA says that a step-ca issues it, asked by its own API.
	StepCA *StepCA `yaml:"step-ca"`

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

	// RotateCA is there if it is no certificate, but what services trust.
	RotateCA *RotateCA `yaml:"rotate-ca"`
}

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
	switch {
	case s.Trigger != "":
		return nil // no service of ours reads them
	case s.RotateCA != nil:
		return []string{fieldBundle}
	case s.rolls():
		return []string{fieldKey}
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
func (s Settings) Pace() (every, overlap time.Duration) {
	if s.RotateCA != nil { // when other authorities are named
		return 3650 * 24 * time.Hour, 48 * time.Hour
	}
	if s.rolls() { // nothing overlaps: it is how long the way back is open
		return 365 * 24 * time.Hour, 24 * time.Hour
	}
	return 365 * 24 * time.Hour, 48 * time.Hour
}

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
	label    = `[a-z0-9_]([a-z0-9_-]*[a-z0-9])?`
	nameForm = regexp.MustCompile(`^(\*\.)?(` + label + `\.)*` + label + `$`)
)

// isName reports whether a text is a DNS name, maybe with a wildcard: how long its parts may
// be, RFC 1035 says. A pattern that counts would be compiled for long, by each run.
func isName(text string) bool {
	return nameForm.MatchString(text) && len(text) <= 253 &&
		!slices.ContainsFunc(strings.Split(text, "."), func(label string) bool { return len(label) > 63 })
}

type faultFunc func(path, tip, format string, args ...any)

// each refuses the keys that are there, all for the same reason.
func (fault faultFunc) each(there map[string]bool, tip, text string) {
	for key, is := range there {
		if is {
			fault(key, tip, "%s", text)
		}
	}
}

func (s Settings) check() error {
	var faults []error
	fault := func(path, tip, format string, args ...any) {
		faults = append(faults, &rotation.Fault{Path: path, Text: fmt.Sprintf(format, args...), Tip: tip})
	}
	if s.rolls() {
		s.checkRollover(fault)
		return errors.Join(faults...)
	}
	s.checkNames(fault)
	managed := s.Trigger != "" || s.CertManager != nil || s.RotateCA != nil
	switch given := s.issuers(); {
	case s.RotateCA != nil:
		s.checkTrust(fault)
	case managed:
		s.checkManaged(fault)
	case len(given) == 0:
		fault("acme", "write acme: {directory: https://acme-v02.api.letsencrypt.org/directory, …}, vault: {servers: […], …} or step-ca: {url: …}", "nothing says who issues it")
	case len(given) > 1:
		fault(given[1], "keep one of "+strings.Join(given, ", "), "there is more than one who issues it")
	}
	if s.ACME != nil && !managed {
		s.ACME.check(s.Names, fault)
	}
	if s.Vault != nil && !managed {
		s.Vault.check(fault)
	}
	if s.StepCA != nil && !managed {
		s.StepCA.check(fault)
	}
	s.checkKeyType(fault)
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

func (s Settings) checkKeyType(fault faultFunc) {
	if s.KeyType != "" && !slices.Contains(keyTypes, s.KeyType) {
		fault("key-type", "known are "+strings.Join(keyTypes, ", "), "unknown kind of key")
	}
}

// issuers are the sections of those who issue it.
func (s Settings) issuers() (given []string) {
	if s.ACME != nil {
		given = append(given, "acme")
	}
	if s.Vault != nil {
		given = append(given, "vault")
	}
	if s.StepCA != nil {
		given = append(given, "step-ca")
	}
	return given
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
		case !isName(n) || net.ParseIP(n) != nil || onlyDigits(n):
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
