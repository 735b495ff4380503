package github

// Documented says of every key of the section what it is, for the schema of the configuration.
func (Settings) Documented() map[string]string {
	return map[string]string{
		"deploy-key":         "A key of a repository, by which services read it or write to it.",
		"installation-token": "A token of the App, for repositories that services use.",
		"webhook":            "The secret that the deliveries of a webhook are signed with.",
		"app":                "The GitHub App in whose name GitHub is asked for this credential. Default: as whom the run asks.",
		"token":              "Where a token stands, if there is no App. Default: as whom the run asks.",
	}
}

// Documented says of every key what it is.
func (DeployKey) Documented() map[string]string {
	return map[string]string{
		"repository":  "OWNER/NAME of the repository.",
		"title":       "What GitHub shows; the version follows it. Default: keyturn and the name of the credential.",
		"read-only":   "Whether the key may not push. Default: true.",
		"adopt":       "The fingerprint of the key that services use today, SHA256:….",
		"probe":       "The URLs by which services clone: ssh://git@host[:port]/owner/name.git. Default: of the server that is asked.",
		"known-hosts": "The path of a file of known hosts. Default: the keys of github.com.",
	}
}

// Documented says of both keys what they are.
func (InstallationToken) Documented() map[string]string {
	return map[string]string{
		"repositories": "OWNER/NAME of each repository that the token is for, all of one owner.",
		"permissions":  "What the token may do there, such as contents: read.",
	}
}

// Documented says of every key what it is.
func (Webhook) Documented() map[string]string {
	return map[string]string{
		"repository":   "OWNER/NAME of the repository whose webhook it is.",
		"organization": "The organisation whose webhook it is, instead of a repository's.",
		"url":          "The URL that GitHub shows of the webhook of today.",
		"probe":        "The URLs of the receivers, as services reach them. Default: url.",
	}
}

// Documented says of both keys what they are.
func (App) Documented() map[string]string {
	return map[string]string{"id": "Its number.", "key": "Where its private key stands, in PEM."}
}
