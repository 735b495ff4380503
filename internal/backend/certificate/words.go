package certificate

// Documented says of every key of the section what it is, for the schema of the configuration.
func (Settings) Documented() map[string]string {
	return map[string]string{
		"names":    "The DNS names and IP addresses that the certificate is for: these, and no other.",
		"acme":     "The ACME server that issues it.",
		"vault":    "The Vault whose PKI engine issues it.",
		"step-ca":  "The step-ca that issues it, asked by its own API.",
		"roots":    "The path of the PEM file with the authorities that clients of the services trust. Default: the system's.",
		"key-type": "ecdsa-p256 (the default), ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096.",
		"probe":    "Where services serve the certificate: tls://HOST:PORT. Every address of the host is asked; tasks.NAME has one for each task of a service.",
		"crl":      "The URL of the list of revoked certificates, where what is issued names neither one nor an OCSP responder.",
		"adopt":    "The path of the PEM file with the certificate that services serve today.",

		"trigger":      "Who is told to issue it, where another system makes and keeps it: cert-manager.",
		"rotate-ca":    "It is no certificate, but what services trust.",
		"cert-manager": "The Certificate of cert-manager, and how Kubernetes is asked.",
	}
}

// Documented says of every key what it is.
func (ACME) Documented() map[string]string {
	return map[string]string{
		"directory":        "The URL of the server's directory.",
		"account":          "Where the private key of the account stands, in PEM form.",
		"agree-terms":      "Says that the terms of service are agreed to: an account that is not there yet is made.",
		"contact":          "Addresses of people for an account that is made.",
		"external-account": "Whose account is made, where the authority makes accounts for its customers alone.",
		"ca":               "The path of the PEM file with the authority of the server's own certificate. Default: the system's.",
		"profile":          "What the server calls the kind of certificate. Default: it chooses.",
		"rollover":         "It is no certificate, but the key of the account, which is changed at the authority.",
		"http-01":          "It is shown whose a name is by what a web server says at port 80.",
		"dns-01":           "It is shown whose a name is by a TXT record.",
	}
}

// Documented says of every key what it is.
func (ExternalAccount) Documented() map[string]string {
	return map[string]string{
		"id":  "What the authority calls the key.",
		"key": "Where the key stands, in base64url.",
	}
}

// Documented says of every key what it is.
func (HTTP01) Documented() map[string]string {
	return map[string]string{
		"directory": "The folder that the web server serves below /.well-known/acme-challenge/.",
		"hook":      "A program and its arguments, which has the answer served in another way.",
		"env":       "Names of variables that the hook gets of Keyturn's.",
	}
}

// Documented says of every key what it is.
func (DNS01) Documented() map[string]string {
	return map[string]string{
		"hook": "A program and its arguments, which sets and removes the record.",
		"env":  "Names of variables that the hook gets of Keyturn's.",
		"wait": "How long after that the record is known everywhere. Default: 0s.",
	}
}
