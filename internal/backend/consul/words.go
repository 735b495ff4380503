package consul

// Documented says of every key of the section what it is, for the schema of the configuration.
func (Settings) Documented() map[string]string {
	return map[string]string{
		"servers":            "The URL of the HTTP API of every server of the datacenter: https://consul-1.example.com:8501. Each is asked by itself.",
		"token":              `Where the administrator's token stands. It needs acl = "write".`,
		"own":                "Whether the credential is that very token: then it is read from the folder that the target writes, FOLDER/current/token.",
		"ca":                 "The path of the PEM file with the authority of the servers. Default: the system's.",
		"probe":              "The URLs by which services reach Consul, such as those of client agents. Default: the servers.",
		"cache-time":         "How long an agent under probe may believe what it knows of a token: acl.token_ttl of its configuration. Default: 30s.",
		"description":        "What stands at every token, before the version. Default: keyturn and the name of the credential.",
		"adopt":              "The AccessorID of the token that services use today.",
		"policies":           "Names of policies that a new token is linked with. Default, with the three below: what the token in service is linked with.",
		"roles":              "Names of roles that a new token is linked with.",
		"service-identities": "NAME or NAME@DATACENTER of services whose identity a new token has.",
		"node-identities":    "NAME@DATACENTER of nodes whose identity a new token has.",
		"insecure-tls":       "Weakens the connections by name: tls-1.2, plaintext. Default: none.",
		"gossip-key":         "The key that agents encrypt their gossip with is rotated, and no token.",
		"agent-token":        "Agents use the token themselves, and are told it at the cutover.",
	}
}

// Documented says of both keys what they are.
func (AgentToken) Documented() map[string]string {
	return map[string]string{
		"agents": "The URL of the HTTP API of every agent that uses the token: https://node-1.example.com:8501.",
		"kinds":  "What they use it for: agent, default, config_file_service_registration, replication, dns. Default: agent.",
	}
}

// Documented says of the key what it is.
func (GossipKey) Documented() map[string]string {
	return map[string]string{
		"probe": "HOST:PORT of Serf, of agents at which a key is tried. Default: every server, at port 8301.",
	}
}
