package certificate

import (
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/backend/remote/vaultapi"
	"github.com/keyturn/keyturn/internal/secret"
)

// StepCA says how the own API of a step-ca is asked.
type StepCA struct {
	// URL is where the authority is.
	URL string `yaml:"url"`

	// Provisioner is the name of a JWK provisioner.
	Provisioner string `yaml:"provisioner"`

	// Key says where the provisioner's private key stands, ECDSA on P-256, in PEM form.
	Key secret.Source `yaml:"key"`

	// TTL is how long a certificate lives, as 30d. Default: the provisioner's.
	TTL string `yaml:"ttl"`

	// CA is the path of the PEM file with the authority's root, which signs its own certificate,
	// too. Empty means the system's.
	CA string `yaml:"ca"`
}

// Documented says of every key what it is.
func (StepCA) Documented() map[string]string {
	return map[string]string{
		"url":         "Where the authority is: https://ca.example.com.",
		"provisioner": "The name of a JWK provisioner.",
		"key":         "Where the provisioner's private key stands, ECDSA on P-256, in PEM form.",
		"ttl":         "How long a certificate lives, such as 30d. Default: what the provisioner says.",
		"ca":          "The path of the PEM file with the authority's root. Default: the system's.",
	}
}

// life is how long a certificate is asked to live; 0: as long as the provisioner says.
func (s StepCA) life() time.Duration {
	d, err := vaultapi.ParseTTL(s.TTL)
	if err != nil {
		return 0 // it is empty, or a fault
	}
	return d
}

func (s StepCA) check(fault faultFunc) {
	if !isURL(s.URL, "https") {
		fault("step-ca.url", "write it as https://ca.example.com", "this is no URL that begins with https:// and has no user or query")
	}
	if s.Provisioner == "" || strings.ContainsAny(s.Provisioner, "\r\n\x00") {
		fault("step-ca.provisioner", "write the name of a JWK provisioner, which `step ca provisioner list` says", "the provisioner is missing")
	}
	if tip, problem := s.Key.Problem(); problem != "" {
		fault("step-ca.key", tip, "the key of the provisioner %s", problem)
	}
	checkTTL("step-ca.ttl", s.TTL, fault)
}
