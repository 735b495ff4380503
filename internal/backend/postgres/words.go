package postgres

// Documented says of every key of the section what it is, for the schema of the configuration.
func (Settings) Documented() map[string]string {
	return map[string]string{
		"admin":          "The URL of the administrator's connection, without a password: postgres://user@host:5432[,host:5432…]/database.",
		"admin-password": "Where the administrator's password stands.",
		"admin-from":     "The folder of the credential that holds the administrator's own login, in place of admin-password; the user of admin is the role it acts as.",
		"ca":             "The path of the PEM file with the authority that signs the servers' certificates. Default: the system's.",
		"role":           "The role whose rights the logins take; it may be the login that services use today.",
		"strategy":       "How a version comes into service: alternating (default), by logins that take turns, or single-role, by another password of the one login, which is a gap.",
		"logins":         "The logins that take turns; of three or more, the last one is kept for emergencies. Default: role_a, role_b, role_c.",
		"probe":          "The URLs by which services reach the database, without user and password. Default: those of admin.",
		"rights":         "By what the administrator changes logins: functions (default), which run as a role that nobody can be, or createrole, a CREATEROLE of its own.",
		"schema":         "The schema that holds the administrator's functions. Default: keyturn.",
		"insecure-tls":   "Weakens the connections by name: tls-1.2, no-hostname, no-verify, plaintext.",
		"pins":           "The keys that the servers' certificates may have, beside the authority: sha256/ and base64, as RFC 7469 has them.",
		"allow-changed":  "What may change for the application that no longer logs in with the adopted login.",
	}
}

// Documented says of both keys what they are.
func (Pins) Documented() map[string]string {
	return map[string]string{"current": "The key of today.", "next": "The key that the servers are to have next."}
}
