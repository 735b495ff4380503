package config

import "time"

// A fact is what the schema says of a key and its type does not.
type fact struct {
	text string
	more object
}

// needed names the keys that must be there, by the name of the struct.
var needed = map[string][]string{
	"file": {"version", "credentials"}, "Directory": {"path"}, "Stack": {"name"}, "Ignored": {"service", "reason"},
	"reminder": {"kind", "made"}, "App": {"id", "key"}, "SSH": {"key", "known-hosts"}, "TLS": {"ca", "cert", "key"},
}

func words(first string, others ...string) object {
	return object{"enum": append([]string{first}, others...), "default": first}
}

func lasts(d time.Duration) object { return object{"default": FormatDuration(d)} }

// positive is a duration that is not zero, with its default.
func positive(d time.Duration) object {
	return object{"default": FormatDuration(d), "not": object{"pattern": `^(0+(d|h|ms|m|s))+$`}}
}

// reachedBy is that the host is there and begins so.
func reachedBy(scheme string) object {
	return object{"required": []string{"host"}, "properties": object{"host": object{"pattern": scheme}}}
}

// someone is a permission that says something.
var someone = object{"anyOf": []object{{"required": []string{"by"}, "properties": object{"by": object{"minItems": 1}}},
	{"required": []string{"workflows"}, "properties": object{"workflows": object{"minItems": 1}}},
	{"required": []string{"environments"}, "properties": object{"environments": object{"minItems": 1}}},
	{"required": []string{"verified"}, "properties": object{"verified": object{"const": true}}}}}

// somewhere is an approval that says where people approve; severalPeople, that more
// than one need the pull request.
var (
	somewhere     = object{"anyOf": []object{{"required": []string{"environment"}, "properties": object{"environment": object{"minLength": 1}}}, pullRequest}}
	severalPeople = object{"if": object{"required": []string{"count"}, "properties": object{"count": object{"minimum": 2}}}, "then": pullRequest}
)

// pullRequest is an approval that asks for the pull request.
var pullRequest = object{"required": []string{"pull-request"}, "properties": object{"pull-request": object{"const": true}}}

// overwritten is what every credential says whose fields are secrets of GitHub.
var overwritten = object{"properties": object{"credentials": object{"additionalProperties": object{
	"required": []string{"secrets", "accept-gap"}, "properties": object{"accept-gap": object{"const": true}},
	"not": object{"anyOf": []object{{"required": []string{"services"}}, {"required": []string{"stack"}}, {"required": []string{"ignore"}}, {"required": []string{"restart"}}}},
}}}}

var variables = object{"propertyNames": object{"pattern": variableName.String()}}

// facts are by struct and key. A test asks for one of every key.
var facts = map[string]fact{
	"file.version":         {"The version of this format.", object{"const": 1}},
	"file.journal":         {"Where the record of every act is kept: github, or file:/PATH.", object{"pattern": `^(github|file:/(.*[^/]))$`}},
	"file.fingerprint-key": {"Where the key of the fingerprints in the journal stands; without it the journal has its own.", nil},
	"file.github":          {"Which repository is used, and as whom; what is left out comes from the workflow's run.", object{"not": object{"required": []string{"app", "token"}}}},
	"file.swarm": {"How the Swarm is reached.", object{"allOf": []object{
		{"if": object{"required": []string{"ssh"}}, "then": reachedBy("^ssh://")},
		{"if": object{"required": []string{"tls"}}, "then": reachedBy("^tcp://")},
		{"if": reachedBy("^ssh://"), "then": object{"required": []string{"ssh"}}},
		{"if": reachedBy("^tcp://"), "then": object{"required": []string{"tls"}}},
	}}},
	"file.directory":       {"A target on one machine, without a Swarm.", nil},
	"file.actions-secrets": {"Secrets of GitHub instead of a Swarm: they hold one value, which nobody can read.", nil},
	"file.credentials":     {"What is rotated, by name.", nil},

	"file.reminders": {"What only people can renew, by name: Keyturn knows its age.", nil},

	"file.notify": {"Who is told of what, by the name of the way.", nil},

	"file.telemetry": {"What is measured, and which Pushgateway is told.", object{"dependentRequired": object{"user": []string{"password"}, "password": []string{"user"}}}},

	"Telemetry.environment": {"The label of everything that is measured.", object{"pattern": environmentName.String(), "default": DefaultEnvironment}},
	"Telemetry.pushgateway": {"The URL of a Prometheus Pushgateway.", object{"pattern": pushgatewayForm}},
	"Telemetry.user":        {"As whom the Pushgateway is told.", nil},
	"Telemetry.password":    {"Where that user's password stands.", nil},

	"channel.url":     {"Where a Shoutrrr URL stands: it is a secret.", nil},
	"channel.mention": {"Logins, and teams as org/team, who are mentioned in an issue on GitHub.", object{"items": object{"type": "string", "pattern": approverName.String()}}},
	"channel.events":  {"What is told; by default everything but done.", object{"items": object{"enum": Events}}},
	"channel.every":   {"How often the same thing may be told again.", lasts(defaultNotifyEvery)},

	"reminder.kind":  {"What it is.", object{"enum": []string{AppKey, PersonalToken, OtherKind}}},
	"reminder.made":  {"The day when the one of today was made.", object{"pattern": datePattern.String()}},
	"reminder.every": {"How often it is renewed; by default 90d, an App's key 180d.", nil},
	"reminder.note":  {"For people: who renews it, and where that is written.", nil},

	"Swarm.host":      {"The engine of a manager.", object{"pattern": `^(unix:///(.*[^/])$|ssh://|tcp://)`, "default": "unix:///var/run/docker.sock"}},
	"Swarm.image":     {"The image of the probes; it holds keyturn.", nil},
	"Swarm.ssh":       {"What ssh:// needs.", nil},
	"Swarm.tls":       {"What tcp:// needs.", nil},
	"SSH.key":         {"Where the private key of the user stands.", nil},
	"SSH.passphrase":  {"Where the passphrase of the key stands.", nil},
	"SSH.known-hosts": {"The file of known hosts; a host that is not in it is refused.", nil},
	"TLS.ca":          {"The file of the authority that the engine's certificate is signed by.", nil},
	"TLS.cert":        {"The file of our certificate.", nil},
	"TLS.key":         {"Where the key of our certificate stands.", nil},

	"GitHub.repository": {"OWNER/NAME.", object{"pattern": repositoryName.String()}},
	"GitHub.branch":     {"The branch of the journal.", object{"pattern": branchName.String(), "default": DefaultBranch}},
	"GitHub.authors":    {"Logins of those who write for Keyturn; by default of who began the journal.", nil},
	"GitHub.app":        {"The GitHub App in whose name GitHub is asked.", nil},
	"GitHub.token":      {"Where a token stands, if there is no App.", nil},
	"App.id":            {"Its number.", object{"minimum": 1}},
	"App.key":           {"Where its private key stands, in PEM.", nil},

	"ActionsSecrets.repository":   {"OWNER/NAME; by default the one of the section github, or of the run.", object{"pattern": repositoryName.String()}},
	"ActionsSecrets.environment":  {"The environment of the repository that has the secrets.", nil},
	"ActionsSecrets.organization": {"The organisation that has the secrets, instead of a repository.", object{"pattern": organizationName.String()}},
	"ActionsSecrets.repositories": {"All repositories that may read an organisation's secrets, where they are selected.", object{"items": object{"type": "string", "pattern": repositoryName.String()}}},
	"ActionsSecrets.for":          {"Whose secrets they are.", words("actions", "dependabot")},

	"Directory.path": {"The absolute path of the folder with a folder for each credential.", object{"pattern": `^/`}},

	"entry.through":     {"How Keyturn reaches the backend.", words("direct", "swarm")},
	"entry.stack":       {"The stack that the services belong to.", nil},
	"entry.services":    {"Who reads the credential, by the name of the service.", nil},
	"entry.render":      {"Fields that are made of others, each with its template.", nil},
	"entry.secrets":     {"The base name of the Swarm secret of a field; with actions-secrets, the name of the secret.", nil},
	"entry.every":       {"How often it is rotated; by default 90d, a deploy key 30d, an installation token 30m.", nil},
	"entry.overlap":     {"How long the old version stays valid after the cutover; by default 1d, a deploy key 2h, a webhook 1h, an installation token 20m.", nil},
	"entry.grace":       {"How long after the overlap the old version ends by itself; by default the overlap again.", nil},
	"entry.bound":       {"How long a version that was prepared may wait.", lasts(defaultBound)},
	"entry.minimum-age": {"How old the current version must be before the next; by default the overlap.", nil},
	"entry.expiry":      {"Whether the old version's end is put off while something uses it.", words("lenient", "strict")},
	"entry.mounts":      {"Whether a service sees one version, or two while it changes.", words("switch", "dual")},
	"entry.rollout":     {"How tasks are replaced.", nil},
	"entry.accept-gap":  {"Whether a moment without a working credential is accepted.", object{"default": false}},
	"entry.ignore":      {"Services that name the secret and are left out.", nil},
	"entry.restart":     {"Directory: the command that runs after the move.", object{"minItems": 1}},

	"entry.allow":        {"Who may do which phase; by default everybody.", nil},
	"Allows.prepare":     {"Who may prepare.", someone},
	"Allows.validate":    {"Who may validate.", someone},
	"Allows.cutover":     {"Who may cut over.", someone},
	"Allows.cleanup":     {"Who may clean up.", someone},
	"Allows.rollback":    {"Who may roll back.", someone},
	"Allow.by":           {"Logins, and teams as org/team.", object{"items": object{"type": "string", "pattern": approverName.String()}}},
	"Allow.workflows":    {"The workflows.", object{"items": object{"type": "string", "pattern": workflowPath.String()}}},
	"Allow.environments": {"The environments of the job, by what GitHub signed.", object{"items": object{"type": "string", "minLength": 1}}},
	"Allow.verified":     {"Whether GitHub must have signed who it is.", object{"default": false}},
	"entry.after":        {"The credentials that this one needs, by name: their rotations come first.", object{"uniqueItems": true}},
	"entry.windows":      {"When a cutover may begin, in UTC; by default always.", object{"items": object{"type": "string", "pattern": windowForm.String()}}},
	"entry.jitter":       {"By how much it may be due earlier, so that not everything is at once.", lasts(0)},
	"entry.approve":      {"Which phases need people, and which people.", nil},

	"Approvals.cutover":     {"What the cutover needs.", object{"allOf": []object{somewhere, severalPeople, {"if": object{"required": []string{"self-review"}, "properties": object{"self-review": object{"const": true}}}, "then": object{"not": pullRequest}}}}},
	"Approvals.rollback":    {"What a rollback that people ask for needs.", object{"allOf": []object{somewhere, severalPeople, {"not": pullRequest}}}},
	"Approval.count":        {"How many people; more than one need the pull request.", object{"minimum": 1, "default": 1}},
	"Approval.by":           {"Logins, and teams as org/team; by default whoever may write.", object{"items": object{"type": "string", "pattern": approverName.String()}}},
	"Approval.environment":  {"The environment of the job, which GitHub holds until somebody approves.", nil},
	"Approval.pull-request": {"Whether reviews of the pull request are needed, too.", object{"default": false}},
	"Approval.workflows":    {"The workflows that may do it; by default any of the default branch.", object{"items": object{"type": "string", "pattern": workflowPath.String()}}},
	"Approval.max-age":      {"How old a review may be.", lasts(DefaultMaxAge)},
	"Approval.self-review":  {"Whether who starts it may approve it: for one who is alone.", object{"default": false}},

	"Stack.name":   {"Its name.", object{"minLength": 1}},
	"Stack.file":   {"The stack file, relative to the working directory.", object{"minLength": 1}},
	"Stack.deploy": {"Who deploys the stack file: people, or a workflow on every push, which asks keyturn guard first.", words("manual", "on-push")},

	"Service.env":  {"Variables that hold a field that is no secret.", variables},
	"Service.file": {"Variables that hold the path of a mounted field.", variables},
	"Service.path": {"Absolute paths of mounted fields.", object{"propertyNames": object{"pattern": `^/`}}},
	"Service.uid":  {"The number of the user that owns the mounted files.", nil},
	"Service.gid":  {"The number of the group that owns the mounted files.", nil},
	"Service.mode": {"The mode of the mounted files.", nil},

	"Rollout.strategy":       {"How the services move.", words("rolling")},
	"Rollout.order":          {"Whether a new task starts before the old one stops.", words("start-first", "stop-first")},
	"Rollout.parallelism":    {"How many tasks are replaced at once.", object{"minimum": 1, "default": 1}},
	"Rollout.delay":          {"The pause between two replacements.", lasts(0)},
	"Rollout.monitor":        {"How long a task without a health check must run.", positive(10 * time.Second)},
	"Rollout.health-timeout": {"How long a task may take to be healthy.", positive(30 * time.Second)},
	"Rollout.timeout":        {"How long the update of a service may take.", positive(10 * time.Minute)},

	"Ignored.service": {"The name of the service.", object{"minLength": 1}},
	"Ignored.reason":  {"Why it is left out.", object{"minLength": 1}},
}
