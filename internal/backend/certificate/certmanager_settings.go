package certificate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/secret"
)

// certManager is the one value of trigger.
const certManager = "cert-manager"

// CertManager says which Certificate of cert-manager it is, and how Kubernetes is asked.
type CertManager struct {
	// API is the URL of the Kubernetes API server.
	API string `yaml:"api"`

	// Token says where the token of the service account stands.
	Token secret.Source `yaml:"token"`

	// CA is the path of the PEM file with the authority that signs the API server's
	// certificate. Empty means the system's.
	CA string `yaml:"ca"`

	// Namespace and Certificate name the resource.
	Namespace   string `yaml:"namespace"`
	Certificate string `yaml:"certificate"`

	// Wait is how long cert-manager may take to issue, and after that services to serve
	// what was issued. Default: 10m.
	Wait string `yaml:"wait"`

	// InsecureTLS weakens the connection by name: "tls-1.2", "plaintext". Default: none,
	// which is verified TLS 1.3.
	InsecureTLS []string `yaml:"insecure-tls"`
}

const (
	defaultWait = 10 * time.Minute
	longestWait = time.Hour
	exampleAPI  = "https://kubernetes.example.com:6443"
)

// patience is Wait as a duration.
func (c CertManager) patience() time.Duration {
	if d, err := time.ParseDuration(c.Wait); err == nil {
		return d
	}
	return defaultWait
}

// Documented says of every key what it is.
func (CertManager) Documented() map[string]string {
	return map[string]string{
		"api":          "The URL of the Kubernetes API server.",
		"token":        "Where the token of the service account stands.",
		"ca":           "The path of the PEM file with the authority of the API server's certificate. Default: the system's.",
		"namespace":    "The namespace of the Certificate.",
		"certificate":  "The name of the Certificate.",
		"wait":         "How long cert-manager may take to issue, and after that services to serve it. Default: 10m.",
		"insecure-tls": "Weakens the connection to the API server by name: tls-1.2, plaintext. Default: verified TLS 1.3.",
	}
}

// Elsewhere says who keeps the certificate and its key, if no target of ours does.
func (s Settings) Elsewhere() string {
	if s.Trigger == "" {
		return ""
	}
	return "cert-manager keeps the certificate and its key in a Secret of Kubernetes"
}

// Gap says what a cutover costs, which must be accepted.
func (s Settings) Gap() string {
	switch {
	case s.rolls():
		return oneKey
	case s.Trigger != "":
		return oneSecret
	}
	return ""
}

const oneSecret = "cert-manager has one Secret: what it issues is in use at once, before anybody could look at it, and there is no way back but forward"

var (
	labelForm     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	subdomainForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

// checkManaged checks what stands beside trigger.
func (s Settings) checkManaged(fault faultFunc) {
	if s.Trigger != certManager {
		fault("trigger", "write trigger: cert-manager, or leave cert-manager: out", "it is cert-manager that can be told")
	}
	fault.each(map[string]bool{"acme": s.ACME != nil, "vault": s.Vault != nil, "step-ca": s.StepCA != nil, "key-type": s.KeyType != "", "adopt": s.Adopt != ""},
		"leave it out: the Certificate says it, and what it has issued today is known", "cert-manager issues the certificate, and decides that")
	if len(s.Probe) == 0 {
		fault("probe", "write probe: [\"tls://orders.example.com:443\"]", "nothing says where the certificate is served: what cert-manager did could not be looked at")
	}
	if s.CertManager == nil {
		fault("cert-manager", "write cert-manager: {api: "+exampleAPI+", token: {from-env: NAME}, namespace: shop, certificate: orders-tls}", "nothing says which Certificate it is")
		return
	}
	s.CertManager.check(fault)
}

func (c CertManager) check(fault faultFunc) {
	const key = "cert-manager"
	if tip, problem := remote.Problem(c.API, exampleAPI, c.InsecureTLS); problem != "" {
		fault(key+".api", tip, "%s", problem)
	}
	if tip, problem := c.Token.Problem(); problem != "" {
		fault(key+".token", tip, "the token of the service account %s", problem)
	}
	if !labelForm.MatchString(c.Namespace) {
		fault(key+".namespace", "write it as shop", "this is no name of a namespace")
	}
	if !subdomainForm.MatchString(c.Certificate) || len(c.Certificate) > 253 {
		fault(key+".certificate", "write it as orders-tls: kubectl get certificates", "this is no name of a Certificate")
	}
	if d, err := time.ParseDuration(c.Wait); c.Wait != "" && (err != nil || d < time.Second || d > longestWait) {
		fault(key+".wait", "write how long it may take: 10m", "this is no time from 1s to 1h")
	}
	for i, w := range c.InsecureTLS {
		if !slices.Contains(remote.Weakenings, w) {
			fault(fmt.Sprintf("%s.insecure-tls.%d", key, i), "known are "+strings.Join(remote.Weakenings, ", "), "unknown weakening")
		}
	}
}
