package certificate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/backend/certificate"
	"github.com/keyturn/keyturn/internal/backend/remote"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotation/rotationtest"
	"github.com/keyturn/keyturn/internal/secret"
)

const good = "names: [orders.example.com]\nacme:\n  directory: https://ca.example.com/directory\n  account: {from-env: A}\n"

const withFolder = good + "  http-01: {directory: /srv/acme}\n"

const byVault = "names: [orders.example.com]\nvault:\n  servers: [\"https://vault:8200\"]\n  token: {from-env: T}\n  role: orders\n"

const byStep = "names: [orders.example.com]\nstep-ca:\n  url: https://ca\n  provisioner: keyturn\n  key: {from-env: K}\n"

func TestSection(t *testing.T) {
	for name, text := range map[string]string{
		"a folder":        withFolder,
		"a program":       good + "  http-01: {hook: [/usr/bin/answer, x], env: [DNS_TOKEN]}\n",
		"long names":      strings.Replace(withFolder, "[orders.example.com]", "["+strings.Repeat("a", 63)+".example, "+strings.Repeat("a.", 126)+"a]", 1),
		"a customer":      withFolder + "  external-account: {id: kid-1, key: {from-env: M}}\n",
		"a record":        good + "  dns-01: {hook: [/usr/bin/answer], wait: 30s}\n",
		"everything":      withFolder + "  agree-terms: true\n  contact: [ops@example.com]\n  ca: ca.pem\n  profile: shortlived\nroots: r.pem\nkey-type: rsa-3072\nprobe: [\"tls://tasks.orders_web:8443\", \"tls://[::1]:443\"]\ncrl: http://ca/crl\nadopt: a.pem\n",
		"all under it":    strings.Replace(good, "[orders.example.com]", `["*.example.com", example.com]`, 1) + "  dns-01: {hook: [/usr/bin/answer]}\n",
		"addresses, too":  strings.Replace(withFolder, "[orders.example.com]", `[192.0.2.1, "2001:db8::1", xn--mnchen-3ya.example]`, 1),
		"Vault":           byVault,
		"step-ca":         byStep,
		"more of step-ca": byStep + "  ttl: 36h\n  ca: ca.pem\n",
		"more of Vault":   byVault + "  mount: pki/internal\n  ttl: 30d\n  ca: ca.pem\n  insecure-tls: [tls-1.2]\n",
		"a bare hostname": strings.Replace(withFolder, "[orders.example.com]", "[orders]", 1),
	} {
		if _, err := certificate.Section(rotationtest.Decoder(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadSection(t *testing.T) {
	const canary = "hunter2-hunter2"
	names := func(n string) string { return strings.Replace(withFolder, "[orders.example.com]", n, 1) }
	directory := func(d string) string { return strings.Replace(withFolder, "https://ca.example.com/directory", d, 1) }
	vault := func(old, with string) string { return strings.Replace(byVault, old, with, 1) }
	step := func(old, with string) string { return strings.Replace(byStep, old, with, 1) }
	rotationtest.Refuses(t, certificate.Section, canary, map[string][3]string{
		"nothing":              {"{}", "names", "no name is given"},
		"nobody":               {"names: [a.example]", "acme", "nothing says who issues it"},
		"two authorities":      {byVault + "acme:\n  directory: https://ca/d\n  account: {from-env: A}\n  http-01: {directory: /a}\n", "vault", "there is more than one who issues it"},
		"a third authority":    {byVault + "step-ca: {url: https://ca, provisioner: a, key: {from-env: K}}\n", "step-ca", "there is more than one who issues it"},
		"step-ca without TLS":  {step("https://ca", "http://ca"), "step-ca.url", "no URL that begins with https://"},
		"a secret of step-ca":  {step("https://ca", "https://u:"+canary+"@ca"), "step-ca.url", "no URL that begins with https://"},
		"no provisioner":       {step("  provisioner: keyturn\n", ""), "step-ca.provisioner", "the provisioner is missing"},
		"no key of step-ca":    {step("  key: {from-env: K}\n", ""), "step-ca.key", "has no place"},
		"two keys of step-ca":  {step("{from-env: K}", "{from-env: K, from-file: /k}"), "step-ca.key", "has two places"},
		"ttl of step-ca":       {byStep + "  ttl: 10s\n", "step-ca.ttl", "no time of a minute or more"},
		"no server":            {vault("[\"https://vault:8200\"]", "[]"), "vault.servers", "no server is named"},
		"no TLS to Vault":      {vault("https://vault", "http://vault"), "vault.servers.0", "the URL has no TLS"},
		"a secret in the URL":  {vault("https://vault:8200", "https://u:"+canary+"@vault:8200"), "vault.servers.0", "a user, a query or a fragment"},
		"a server twice":       {vault("\"https://vault:8200\"", "\"https://vault:8200\", \"https://vault:8200\""), "vault.servers.1", "stands there twice"},
		"no token":             {vault("  token: {from-env: T}\n", ""), "vault.token", "has no place"},
		"two tokens":           {vault("{from-env: T}", "{from-env: T, from-file: /t}"), "vault.token", "has two places"},
		"no role":              {vault("  role: orders\n", ""), "vault.role", "the role is missing"},
		"a path for a role":    {vault("role: orders", "role: ../"+canary), "vault.role", "cannot be the name of a role"},
		"mount":                {byVault + "  mount: /pki/../" + canary + "\n", "vault.mount", "cannot be a mount"},
		"ttl":                  {byVault + "  ttl: " + canary + "\n", "vault.ttl", "no time of a minute or more"},
		"a second":             {byVault + "  ttl: 1s\n", "vault.ttl", "no time of a minute or more"},
		"weakening":            {byVault + "  insecure-tls: [none]\n", "vault.insecure-tls.0", "unknown weakening"},
		"unknown key of Vault": {byVault + "  rolle: x\n", "", "rolle"},
		"no name":              {names("[]"), "names", "no name is given"},
		"a URL for a name":     {names(`["https://` + canary + `.example"]`), "names.0", "no name that a certificate can have"},
		"capital letters":      {names("[" + strings.ToUpper(canary) + "]"), "names.0", "no name that a certificate can have"},
		"other letters":        {names("[münchen.example]"), "names.0", "no name that a certificate can have"},
		"half an address":      {names("[192.0.2]"), "names.0", "no name that a certificate can have"},
		"a label of 64":        {names("[" + strings.Repeat("a", 64) + ".example]"), "names.0", "no name that a certificate can have"},
		"a name of 254":        {names("[" + strings.Repeat("a.", 126) + "aa]"), "names.0", "no name that a certificate can have"},
		"a long key's name":    {withFolder + "  external-account: {id: " + strings.Repeat("k", 257) + ", key: {from-env: M}}\n", "acme.external-account.id", "cannot be the name of a key"},
		"a long variable":      {good + "  http-01: {hook: [/a], env: [" + strings.Repeat("V", 129) + "]}\n", "acme.http-01.env.0", "cannot be the name of a variable"},
		"named twice":          {names("[a.example, a.example]"), "names.1", "stands there twice"},
		"too many":             {names("[" + strings.Repeat("a.example, ", 100) + "b.example]"), "", "more than 100 names"},
		"a wildcard by HTTP":   {names(`["*.example.com"]`), "acme.http-01", "by a DNS record alone"},
		"an address by DNS":    {strings.Replace(good, "orders.example.com", "192.0.2.1", 1) + "  dns-01: {hook: [/bin/x]}\n", "acme.dns-01", "has no DNS record"},
		"plain text":           {directory("http://ca.example.com/directory"), "acme.directory", "no URL that begins with https://"},
		"a password in it":     {directory("https://u:" + canary + "@ca/directory"), "acme.directory", "no URL that begins with https://"},
		"a query in it":        {directory("https://ca/directory?key=" + canary), "acme.directory", "no URL that begins with https://"},
		"no account":           {strings.Replace(withFolder, "  account: {from-env: A}\n", "", 1), "acme.account", "has no place"},
		"two accounts":         {strings.Replace(withFolder, "{from-env: A}", "{from-env: A, from-file: /b}", 1), "acme.account", "has two places"},
		"no challenge":         {good, "acme", "whose the names are"},
		"two challenges":       {withFolder + "  dns-01: {hook: [/bin/x]}\n", "acme", "two kinds of challenge"},
		"a folder and more":    {good + "  http-01: {directory: /a, hook: [/b]}\n", "acme.http-01", "one of directory and hook"},
		"a folder from here":   {good + "  http-01: {directory: www}\n", "acme.http-01.directory", "no absolute path"},
		"a program from here":  {good + "  dns-01: {hook: [" + canary + "]}\n", "acme.dns-01.hook", "no absolute path"},
		"no program":           {good + "  dns-01: {wait: 1s}\n", "acme.dns-01.hook", "no program sets the record"},
		"a value for the hook": {good + "  dns-01: {hook: [/bin/x], env: [\"TOKEN=" + canary + "\"]}\n", "acme.dns-01.env.0", "the name of a variable"},
		"wait":                 {good + "  dns-01: {hook: [/bin/x], wait: soon}\n", "acme.dns-01.wait", "no time from 0s to 1h"},
		"contact":              {withFolder + "  contact: [\"" + canary + "\"]\n", "acme.contact.0", "no address of mail"},
		"customer":             {withFolder + "  external-account: {id: \"\", key: {from-env: M}}\n", "acme.external-account.id", "the name of a key"},
		"customer with space":  {withFolder + "  external-account: {id: \"a " + canary + "\", key: {from-env: M}}\n", "acme.external-account.id", "the name of a key"},
		"customer's key":       {withFolder + "  external-account: {id: a}\n", "acme.external-account.key", "has no place"},
		"customer's two keys":  {withFolder + "  external-account: {id: a, key: {from-env: M, from-file: /m}}\n", "acme.external-account.key", "has two places"},
		"profile":              {withFolder + "  profile: \"a b\"\n", "acme.profile", "the name of a profile"},
		"key-type":             {withFolder + "key-type: ed25519\n", "key-type", "unknown kind of key"},
		"probe without port":   {withFolder + "probe: [\"tls://web\"]\n", "probe.0", "no tls://HOST:PORT"},
		"probe by HTTPS":       {withFolder + "probe: [\"https://web:443\"]\n", "probe.0", "no tls://HOST:PORT"},
		"probe twice":          {withFolder + "probe: [\"tls://w:1\", \"tls://w:1\"]\n", "probe.1", "stands there twice"},
		"crl":                  {withFolder + "crl: ldap://ca/crl\n", "crl", "no URL that begins with http://"},
		"unknown key":          {withFolder + "nmaes: [a]\n", "", "nmaes"},
		"unknown key inside":   {withFolder + "  challange: x\n", "", "challange"},
	})
}

func TestNew(t *testing.T) {
	s := certificate.Settings{Names: []string{"a.example"}, ACME: &certificate.ACME{Directory: "https://127.0.0.1:1/dir", Account: secret.Source{Env: "A"}, HTTP01: &certificate.HTTP01{Directory: "/tmp"}}}
	for name, o := range map[string]certificate.Options{"ca": {Options: remote.Options{CA: []byte("none")}}, "roots": {Roots: []byte("none")}} {
		if _, err := certificate.New(s, o); rotation.ClassOf(err) != rotation.Invalid {
			t.Errorf("%s that are none: %v, want it to be invalid", name, err)
		}
	}
	v := certificate.Settings{Names: s.Names, Vault: &certificate.Vault{Servers: []string{"https://127.0.0.1:1"}, Token: secret.Source{Env: "A"}, Role: "orders"}}
	b, err := certificate.New(v, certificate.Options{Options: remote.Options{Getenv: func(string) string { return "" }}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Preflight(t.Context(), rotation.Credential{}); rotation.ClassOf(err) != rotation.Invalid || !strings.Contains(err.Error(), "holds no value") {
		t.Errorf("without a token: %v, want it to be invalid", err)
	}
	if _, err := certificate.New(certificate.Settings{}, certificate.Options{}); rotation.ClassOf(err) != rotation.Invalid {
		t.Errorf("settings without anything: %v, want them to be invalid", err)
	}
	for account, want := range map[string]string{"": "holds no value", "hunter2": "no key in PEM form", "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----": "no private key for signatures"} {
		b, err := certificate.New(s, certificate.Options{Options: remote.Options{Getenv: func(string) string { return account }}})
		if err != nil {
			t.Fatal(err)
		}
		err = b.Preflight(t.Context(), rotation.Credential{})
		if rotation.ClassOf(err) != rotation.Invalid || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("with the account's key %q: %v, want it to be invalid: %s", account, err, want)
		}
	}
}

func TestDueAt(t *testing.T) {
	v := rotation.Version{Public: map[string]string{"not-before": "2026-01-01T00:00:00Z", "not-after": "2026-01-31T00:00:00Z"}}
	if got, want := (certificate.Settings{}).DueAt(v), time.Date(2026, 1, 21, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("of 30 days it is due at %s, want %s", got, want)
	}
	if got := (certificate.Settings{}).DueAt(rotation.Version{}); !got.IsZero() {
		t.Errorf("without a record it is due at %s, want no time", got)
	}
}
