package cli_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/backend/kafka"
	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/config"
)

// A value in the wrong place may be a secret, so no fault of a backend's own
// section repeats one, whatever it is and wherever it stands. Keys are shown,
// so it is planted in place of values alone.
func TestNoFaultOfASectionHoldsAValue(t *testing.T) {
	const planted = "Xk7canary9"
	section := map[string]string{
		"admin":          "postgres://keyturn@db:5432/orders",
		"admin-password": "{from-env: KEYTURN_PG_PASSWORD}",
		"ca":             "deploy/db-ca.pem",
		"role":           "orders",
		"logins":         "[orders_x, orders_y]",
		"probe":          `["postgres://pooler:6432/orders"]`,
		"schema":         "keyturn",
		"insecure-tls":   "[tls-1.2]",
		"pins":           "{current: sha256/" + strings.Repeat("A", 43) + "=}",
		"allow-changed":  "[session-user]",
	}
	disguises := []string{planted, `"` + planted + `!"`, `"` + planted + ` x"`, `"` + planted + `:x"`, "[" + planted + "]", `["` + planted + `:x", ` + planted + `]`,
		"postgres://keyturn:" + planted + "@db/orders", "[postgres://keyturn:" + planted + "@db/orders]", "postgres://" + planted + "@db/or ders",
		`"postgres://keyturn@` + planted + `:port/orders"`, "postgres://keyturn@db/orders?sslpassword=" + planted, `"postgres://keyturn@db/` + planted + `%zz"`,
		planted + "://keyturn@db/orders", "{from-env: " + planted + "}", "{password: " + planted + "}", "[orders_x, orders_x, " + planted + "]", `"` + planted + `\e[31m"`}
	refused := 0
	for _, key := range sortedNames(section) {
		for _, disguise := range disguises {
			text := "version: 1\ncredentials:\n  orders-db:\n    services: {api: {file: {PASSWORD_FILE: password}}}\n    postgres:\n"
			for _, k := range sortedNames(section) {
				value := section[k]
				if k == key {
					value = disguise
				}
				text += "      " + k + ": " + value + "\n"
			}
			if tells(t, key, disguise, text, planted) {
				refused++
			}
		}
	}
	for _, key := range []string{"servers", "token", "ca", "probe", "cache-time", "description", "adopt", "policies", "roles", "service-identities", "node-identities", "insecure-tls", "gossip-key", "agent-token", "own"} {
		for _, disguise := range append(disguises, "[https://u:"+planted+"@h:8501]", `["https://h/`+planted+`%zz"]`, `{probe: ["`+planted+`@h:1"]}`, "{probe: "+planted+"}", "{probe: ["+planted+"]}", "{agents: ["+planted+"]}", `{agents: ["https://u:`+planted+`@h:1"]}`, `{agents: ["https://h:1"], kinds: [`+planted+`]}`) {
			section := map[string]string{"servers": `["https://h:8501"]`, "token": "{from-env: T}"}
			section[key] = disguise
			text := "version: 1\ncredentials:\n  kv:\n    services: {api: {file: {TOKEN_FILE: token}}}\n    consul:\n"
			for _, k := range sortedNames(section) {
				text += "      " + k + ": " + section[k] + "\n"
			}
			if tells(t, "consul."+key, disguise, text, planted) {
				refused++
			}
		}
	}
	for key := range (kafka.Settings{}).Documented() {
		for _, disguise := range append(disguises, `["u:`+planted+`@h:9093"]`, `["kafka://`+planted+`:9093"]`) {
			section := map[string]string{"brokers": `["h:9093"]`, "admin": "keyturn", "admin-password": "{from-env: T}", "principals": "[a, b]"}
			section[key] = disguise
			text := "version: 1\ncredentials:\n  topic:\n    services: {api: {file: {PASSWORD_FILE: password}}}\n    kafka:\n"
			for _, k := range sortedNames(section) {
				text += "      " + k + ": " + section[k] + "\n"
			}
			if tells(t, "kafka."+key, disguise, text, planted) {
				refused++
			}
		}
	}
	for _, key := range []string{"servers", "token", "ca", "insecure-tls", "role", "mount", "probe", "adopt", "secret-id-ttl", "metadata", "cidr-list", "token-bound-cidrs"} {
		for _, disguise := range append(disguises, "[https://u:"+planted+"@h:8200]", `["https://h/`+planted+`%zz"]`) {
			of := map[string]string{"servers": `["https://h:8200"]`, "token": "{from-env: T}"}
			role := map[string]string{"role": "orders"}
			if slices.Contains([]string{"servers", "token", "ca", "insecure-tls"}, key) {
				of[key] = disguise
			} else {
				role[key] = disguise
			}
			text := "version: 1\ncredentials:\n  safe:\n    services: {api: {file: {SECRET_ID_FILE: secret_id}}}\n    vault:\n"
			for _, k := range sortedNames(of) {
				text += "      " + k + ": " + of[k] + "\n"
			}
			text += "      approle:\n"
			for _, k := range sortedNames(role) {
				text += "        " + k + ": " + role[k] + "\n"
			}
			if tells(t, "vault."+key, disguise, text, planted) {
				refused++
			}
		}
	}
	for _, key := range []string{"repository", "title", "read-only", "adopt", "probe", "known-hosts"} {
		for _, disguise := range append(disguises, "[ssh://git:"+planted+"@h/acme/x.git]", `["ssh://git@h/`+planted+`%zz"]`) {
			section := "deploy-key: {repository: acme/config}"
			if key == "repository" {
				section = "deploy-key: {repository: " + disguise + "}"
			} else {
				section = strings.Replace(section, "}", ", "+key+": "+disguise+"}", 1)
			}
			text := "version: 1\ncredentials:\n  config-git:\n    services: {api: {file: {KEY_FILE: key}}}\n    github:\n      " + section + "\n"
			if tells(t, key, disguise, text, planted) {
				refused++
			}
		}
	}
	for key, sections := range map[string][]string{
		"token":   {"installation-token: {repositories: DISGUISE, permissions: {contents: read}}", "installation-token: {repositories: [acme/x], permissions: DISGUISE}", "installation-token: {repositories: [acme/x], permissions: {contents: DISGUISE}}"},
		"webhook": {"webhook: {repository: DISGUISE, url: https://h/x}", "webhook: {organization: DISGUISE, url: https://h/x}", "webhook: {repository: acme/x, url: DISGUISE}", "webhook: {repository: acme/x, url: https://h/x, probe: [DISGUISE]}"},
	} {
		for _, section := range sections {
			for _, disguise := range disguises {
				text := "version: 1\ncredentials:\n  config-git:\n    mounts: dual\n    services: {api: {file: {KEY_FILE: secret}}}\n    github:\n      " +
					strings.Replace(section, "DISGUISE", disguise, 1) + "\n"
				if tells(t, key, disguise, text, planted) {
					refused++
				}
			}
		}
	}
	for _, section := range []string{
		"{names: DISGUISE, acme: {directory: 'https://ca/d', account: {from-env: A}, http-01: {directory: /srv/acme}}}",
		"{names: [a.example], acme: {directory: DISGUISE, account: {from-env: A}, http-01: {directory: /srv/acme}}}",
		"{names: [a.example], acme: {directory: 'https://ca/d', account: DISGUISE, http-01: {directory: /srv/acme}}}",
		"{names: [a.example], acme: {directory: 'https://ca/d', account: {from-env: A}, http-01: {directory: DISGUISE}}}",
		"{names: [a.example], acme: {directory: 'https://ca/d', account: {from-env: A}, dns-01: {hook: DISGUISE}}}",
		"{names: [a.example], acme: {directory: 'https://ca/d', account: {from-env: A}, dns-01: {hook: [/bin/x], env: DISGUISE}}}",
		"{names: [a.example], acme: {directory: 'https://ca/d', account: {from-env: A}, dns-01: {hook: [/bin/x], wait: DISGUISE}}}",
		"{names: [a.example], acme: {directory: 'https://ca/d', account: {from-env: A}, contact: DISGUISE, profile: DISGUISE, http-01: {hook: DISGUISE}}}",
		"{names: [a.example], acme: {directory: 'https://ca/d', account: {from-env: A}, external-account: {id: DISGUISE, key: DISGUISE}, http-01: {directory: /srv/acme}}}",
		"{names: [a.example], step-ca: {url: DISGUISE, provisioner: DISGUISE, key: DISGUISE, ttl: DISGUISE}}",
		"{names: [a.example], vault: {servers: DISGUISE, token: {from-env: T}, role: r}}",
		"{names: [a.example], vault: {servers: ['https://h'], token: DISGUISE, role: r}}",
		"{names: [a.example], vault: {servers: ['https://h'], token: {from-env: T}, role: DISGUISE}}",
		"{names: [a.example], vault: {servers: ['https://h'], token: {from-env: T}, role: r, mount: DISGUISE, ttl: DISGUISE, insecure-tls: DISGUISE}}",
		"{names: [a.example], key-type: DISGUISE, probe: DISGUISE, crl: DISGUISE, adopt: DISGUISE, roots: DISGUISE}",
	} {
		for _, disguise := range disguises {
			text := "version: 1\ncredentials:\n  web:\n    services: {api: {file: {KEY_FILE: key}}}\n    certificate: " + strings.ReplaceAll(section, "DISGUISE", disguise) + "\n"
			if tells(t, "certificate", disguise, text, planted) {
				refused++
			}
		}
	}
	if refused < 200 {
		t.Errorf("%d planted values were refused, want at least 200", refused)
	}
}

// tells reports whether a text is refused, and fails the test if that tells what was planted.
func tells(t *testing.T, key, disguise, text, planted string) bool {
	t.Helper()
	_, err := config.Parse("f.yml", []byte(text), cli.Sections())
	if err == nil {
		return false
	}
	if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(planted)) {
		t.Errorf("%s: %s\nis told by:\n%v", key, disguise, err)
	}
	return true
}

func sortedNames(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// TestWhatAKindNeeds shows what the configuration refuses because of what is rotated.
func TestWhatAKindNeeds(t *testing.T) {
	const (
		webhook = "github: {webhook: {repository: acme/x, url: https://h/x}}"
		token   = "github: {installation-token: {repositories: [acme/x], permissions: {contents: read}}}"
	)
	for _, tt := range []struct{ section, more, key, text string }{
		{webhook, "", "mounts", "the receivers must know both"},
		{webhook, "mounts: switch", "mounts", "the receivers must know both"},
		{webhook, "mounts: dual", "", ""},
		{token, "", "", ""},
		{token, "every: 40m", "every", "a version lives for 1h: every 40m, and an overlap of 20m, are too long for it"},
		{token, "every: 90d\n    overlap: 24h", "every", "are too long for it"},
		{token, "every: 40m\n    overlap: 10m", "", ""},
	} {
		text := "version: 1\ncredentials:\n  x:\n    services: {api: {path: {/run/secrets/x: " + map[string]string{webhook: "secret", token: "token"}[tt.section] + "}}}\n    " +
			tt.section + "\n    " + tt.more + "\n"
		_, err := config.Parse("f.yml", []byte(text), cli.Sections())
		switch {
		case tt.key == "" && err != nil, tt.key != "" && (err == nil || !strings.Contains(err.Error(), "credentials.x."+tt.key+": ") || !strings.Contains(err.Error(), tt.text)):
			t.Errorf("%s with %q: %v, want %s: %s", tt.section, tt.more, err, tt.key, tt.text)
		}
	}
}

// TestWhatChangesIsRead refuses services that read a password of Kafka and not what changes with it.
func TestWhatChangesIsRead(t *testing.T) {
	for _, tt := range []struct{ turn, service, lacks string }{
		{"principals: [a, b]", "{file: {P: password}}", "username"},
		{"principals: [a, b]", "{file: {P: password}, env: {U: username}}", ""},
		{"principals: [a, b]", "{file: {P: jaas}}", ""},
		{"principal: a", "{file: {P: password}, env: {U: username}}", "mechanism"},
		{"principal: a", "{file: {P: jaas}}", "mechanism"},
		{"principal: a", "{file: {P: password, M: mechanism}}", ""},
		{"principal: a", "{path: {/run/secrets/p: properties}}", ""},
		{"principal: a", "{path: {/run/secrets/b: brokers}}", ""},
	} {
		text := "version: 1\ncredentials:\n  x:\n    services: {api: " + tt.service + "}\n" +
			"    kafka: {brokers: ['h:9093'], admin: keyturn, admin-password: {from-env: T}, " + tt.turn + "}\n" +
			"    render: {jaas: '{username} {password}', properties: 'm={mechanism} j={jaas}'}\n"
		_, err := config.Parse("f.yml", []byte(text), cli.Sections())
		want := `credentials.x.services.api: the service reads a secret and not the field "` + tt.lacks + `", which changes with it`
		switch {
		case tt.lacks == "" && err != nil, tt.lacks != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s, %s: %v, want it to lack %q", tt.turn, tt.service, err, tt.lacks)
		}
	}
}
