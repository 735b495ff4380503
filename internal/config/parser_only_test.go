package config_test

// parserOnly lists the golden files that only the parser refuses, by the reason.
var parserOnly = map[string][]string{
	"YAML has it, and the data that a schema sees does not show it": {"anchor-on-credential.yml", "anchors.yml", "merge-key.yml",
		"tag.yml", "two-documents.yml", "utf-16.yml"},
	"durations are compared, and a pattern cannot": {"bound-too-short.yml", "duration-too-long.yml", "health-timeout.yml",
		"minimum-age-too-long.yml", "overlap-too-long.yml", "jitter-too-long.yml", "window-backwards.yml"},
	"a path that leads elsewhere than it says": {"host-dots.yml", "journal-dots.yml"},
	"a name is compared with another, or used twice": {"dual-clash.yml", "ignored-and-rotated.yml", "ignored-twice.yml",
		"path-below-path.yml", "path-twice-across.yml", "rollouts-differ.yml", "secret-name-twice.yml", "service-twice.yml",
		"variable-twice.yml", "written-with-stack.yml", "approve-same-environment.yml"},
	"it depends on whether the target is a Swarm or a directory": {"env-with-directory.yml", "no-services.yml",
		"restart-with-swarm.yml", "service-mounts-nothing.yml", "swarm-keys-with-directory.yml"},
	"the backend says which fields there are, and which are secret": {"render-public-in-env.yml", "render-shadows.yml",
		"render-unknown-field.yml", "render-unknown-is-not-shown.yml", "secret-as-a-base-name.yml", "secret-as-a-field.yml",
		"secret-in-env.yml", "unknown-field.yml"},
	"a Swarm secret's name is as long as base and version together": {"secret-name-too-long.yml", "secret-name.yml"},
	"templates have a grammar of their own": {"render-beside-url.yml", "render-braces.yml", "render-cycle.yml", "render-empty.yml",
		"render-itself.yml", "render-json-literal-in-url.yml", "render-json-not-quoted.yml", "render-json-url-broken.yml",
		"render-json-username.yml", "render-keyword-quoted.yml", "render-literal-in-password.yml", "render-literal-json.yml",
		"render-literal-keyword-quoted.yml", "render-literal-keyword.yml", "render-literal-parameter.yml",
		"render-literal-password.yml", "render-literal-plain.yml", "render-literal-user-and-password.yml",
		"render-literal-variable.yml", "render-no-field.yml"},
	"the backend checks the values of its section":    {"no-role.yml", "password-in-probe.yml", "password-in-url.yml"},
	"a program's path is absolute, or a name in PATH": {"restart-relative.yml"},
}
