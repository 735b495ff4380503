package kafka

// Documented says of every key of the section what it is, for the schema of the configuration.
func (Settings) Documented() map[string]string {
	return map[string]string{
		"brokers":                 "host:port of every broker, as the administrator reaches it: kafka-1.example.com:9093. Each is asked by itself.",
		"admin":                   "The administrator's user of SCRAM. It needs ALTER, DESCRIBE, ALTER_CONFIGS and DESCRIBE_CONFIGS on the cluster.",
		"admin-password":          "Where the administrator's password stands.",
		"admin-mechanism":         "The administrator's mechanism: SCRAM-SHA-256 or SCRAM-SHA-512. Default: SCRAM-SHA-512.",
		"ca":                      "The path of the PEM file with the authority of the brokers. Default: the system's.",
		"probe":                   "host:port of every broker, as services reach it. Default: the brokers.",
		"principals":              `The users that versions take in turn, two or more, without "User:". Of three or more, the last is kept for emergencies.`,
		"principal":               `Instead of principals: the user whose mechanisms, SCRAM-SHA-256 and SCRAM-SHA-512, versions take in turn, without "User:". Services must read the field mechanism.`,
		"mechanism":               "The mechanism of the services: SCRAM-SHA-256 or SCRAM-SHA-512; with principal, that of the first version. Default: SCRAM-SHA-512.",
		"accept-live-connections": "With principal, where connections.max.reauth.ms is not set: true accepts that a client which is connected by a password that was ended goes on. Default: false.",
		"adopt":                   "The user that services log in as today.",
		"rights-of":               "The user whose ACLs and quotas each version takes; it needs no password. Default: the one in service.",
		"topics":                  "Topics that a probe looks at: a version that may not see one is unfit. Default: none.",
		"insecure-tls":            "Weakens the connections by name: tls-1.2, plaintext. Default: none.",
	}
}
