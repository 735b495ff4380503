package vault

import "github.com/keyturn/keyturn/internal/backend/remote/vaultapi"

// Documented says of every key of the section what it is, for the schema of the configuration.
func (Settings) Documented() map[string]string {
	return map[string]string{
		"servers":      "The URL of the API of every node, or of what stands before them: " + vaultapi.ExampleURL + ". They are asked in their order, until one answers.",
		"token":        "Where the administrator's token stands.",
		"ca":           "The path of the PEM file with the authority of the servers. Default: the system's.",
		"approle":      "A secret-id of a role, with which services log in.",
		"seal":         "The shares of the unseal key, which people hold.",
		"recovery":     "The shares of the recovery key of a Vault that unseals itself, which people hold.",
		"barrier":      "The key with which Vault encrypts what it stores: {}.",
		"insecure-tls": "Weakens the connections by name: tls-1.2, plaintext. Default: none.",
	}
}

// Documented says of every key what it is.
func (Shares) Documented() map[string]string {
	return map[string]string{
		"holders":   "The paths of OpenPGP public keys, one for each share.",
		"threshold": "How many shares are needed.",
		"deliver":   "The folder into which the encrypted shares are written. Default: holders fetch them from Vault.",
		"wait":      "How long a run waits for holders, such as 15m. Default: 10m.",
	}
}

// Documented says that there is no key.
func (Barrier) Documented() map[string]string { return nil }

// Documented says of every key what it is.
func (AppRole) Documented() map[string]string {
	return map[string]string{
		"role":              "The name of the role.",
		"mount":             "Where AppRole is enabled, below auth/. Default: approle.",
		"probe":             "The URLs by which services reach Vault. Default: the servers.",
		"adopt":             "The accessor of the secret-id that services use today. Default: the one that the role has.",
		"secret-id-ttl":     "How long a secret-id lives, such as 120d. Default: it has no end.",
		"metadata":          "Metadata of a new secret-id. Default: that of the one in service.",
		"cidr-list":         "From where a new secret-id may be used. Default: as the one in service.",
		"token-bound-cidrs": "From where tokens of a new secret-id may be used. Default: as those of the one in service.",
	}
}
