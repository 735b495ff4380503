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
	"SSH": {"key", "known-hosts"}, "TLS": {"ca", "cert", "key"},
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

var variables = object{"propertyNames": object{"pattern": variableName.String()}}

// facts are by struct and key. A test asks for one of every key.
var facts = map[string]fact{
	"file.version":         {"The version of this format.", object{"const": 1}},
	"file.journal":         {"Where the record of every act is kept: file:/PATH.", object{"pattern": `^file:/(.*[^/])$`}},
	"file.fingerprint-key": {"Where the key of the fingerprints in the journal stands; without it the journal has its own.", nil},
	"file.swarm": {"How the Swarm is reached.", object{"allOf": []object{
		{"if": object{"required": []string{"ssh"}}, "then": reachedBy("^ssh://")},
		{"if": object{"required": []string{"tls"}}, "then": reachedBy("^tcp://")},
		{"if": reachedBy("^ssh://"), "then": object{"required": []string{"ssh"}}},
		{"if": reachedBy("^tcp://"), "then": object{"required": []string{"tls"}}},
	}}},
	"file.directory":   {"A target on one machine, without a Swarm.", nil},
	"file.credentials": {"What is rotated, by name.", nil},

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

	"Directory.path": {"The absolute path of the folder with a folder for each credential.", object{"pattern": `^/`}},

	"entry.through":     {"How Keyturn reaches the backend.", words("direct", "swarm")},
	"entry.stack":       {"The stack that the services belong to.", nil},
	"entry.services":    {"Who reads the credential, by the name of the service.", nil},
	"entry.render":      {"Fields that are made of others, each with its template.", nil},
	"entry.secrets":     {"The base name of the Swarm secret of a field.", nil},
	"entry.every":       {"How often it is rotated.", lasts(defaultEvery)},
	"entry.overlap":     {"How long the old version stays valid after the cutover.", lasts(defaultOverlap)},
	"entry.grace":       {"How long after the overlap the old version ends by itself; by default the overlap again.", nil},
	"entry.bound":       {"How long a version that was prepared may wait.", lasts(defaultBound)},
	"entry.minimum-age": {"How old the current version must be before the next; by default the overlap.", nil},
	"entry.expiry":      {"Whether the old version's end is put off while something uses it.", words("lenient", "strict")},
	"entry.mounts":      {"Whether a service sees one version, or two while it changes.", words("switch", "dual")},
	"entry.rollout":     {"How tasks are replaced.", nil},
	"entry.accept-gap":  {"Whether a moment without a working credential is accepted.", object{"default": false}},
	"entry.ignore":      {"Services that name the secret and are left out.", nil},
	"entry.restart":     {"Directory: the command that runs after the move.", object{"minItems": 1}},

	"Stack.name":   {"Its name.", object{"minLength": 1}},
	"Stack.file":   {"The stack file, relative to the working directory.", object{"minLength": 1}},
	"Stack.deploy": {"Who deploys the stack file.", words("manual")},

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
