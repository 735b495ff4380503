package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/cli/undertest/hooks"
	"github.com/keyturn/keyturn/internal/testserver"
)

func scenes() []scene {
	return []scene{
		{name: "usage", mistakes: usageMistakes()},
		{name: "configuration", mistakes: configurationMistakes()},
		{name: "adoption", mistakes: adoptionMistakes()},
		{name: "adopted", set: func(s *shop) { s.ok("adopt", s.name) }, mistakes: adoptedMistakes()},
		{name: "prepared", set: func(s *shop) { s.ok("adopt", s.name); s.ok("prepare", s.name) }, mistakes: preparedMistakes()},
		{name: "overlap", set: func(s *shop) { s.ok("adopt", s.name); s.ok("rotate", s.name) }, mistakes: overlapMistakes()},
		{name: "retired", set: func(s *shop) {
			s.ok("adopt", s.name)
			s.ok("rotate", s.name)
			s.ok("cleanup", "--force", "drill", s.name)
		}, mistakes: retiredMistakes()},
		{name: "journal", set: func(s *shop) { s.ok("adopt", s.name) }, mistakes: journalMistakes()},
		{name: "certificate", mistakes: certificateMistakes(), alone: true},
	}
}

func usageMistakes() []mistake {
	return []mistake{
		{name: "unknown command", args: "rotte shop", code: 2},
		{name: "unknown flag", args: "rotate --fast shop", code: 2},
		{name: "unknown shorthand", args: "status -x", code: 2},
		{name: "bad output", args: "status -o yaml", code: 2},
		{name: "bad output of version", args: "version --output xml", code: 2},
		{name: "no credential", args: "prepare", code: 2},
		{name: "unknown credential", args: "rotate orders", code: 2},
		{name: "unknown credential of status", args: "status orders", code: 2},
		{name: "unknown credential of setup", args: "setup postgres orders", code: 2},
		{name: "unknown backend of setup", args: "setup mysql", code: 2},
		{name: "unknown credential of adopt", args: "adopt orders", code: 2},
		{name: "unknown credential behind a known one of setup", args: "setup postgres shop orders", code: 2},
		{name: "unknown credential behind a known one of adopt", args: "adopt shop orders", code: 2},
		{name: "nothing to adopt named", args: "adopt", code: 2},
		{name: "due and a name", args: "prepare --due shop", code: 2},
		{name: "rollback without reason", args: "rollback shop", code: 2},
		{name: "rollback with a blank reason", args: `rollback --reason=\t shop`, code: 2},
		{name: "force with a blank reason", args: `cleanup --force=\t shop`, code: 2},
		{name: "force without reason", args: "cleanup shop --force", code: 2},
		{name: "force with an empty reason", args: "cleanup --force= shop", code: 2},
		{name: "force where it is not known", args: "cutover --force now shop", code: 2},
		{name: "plan without hash", args: "cutover shop --plan", code: 2},
		{name: "probe without flags", args: "probe", code: 2},
		{name: "version with an argument", args: "version 2", code: 2},
		{name: "completion without a shell", args: "completion", code: 2},
		{name: "completion of an unknown shell", args: "completion tcsh", code: 2},
		{name: "completion of two shells", args: "completion bash zsh", code: 2},
		{name: "the whole configuration of one credential", args: "plan --config-full shop", code: 2},
		{name: "the whole configuration as JSON", args: "plan --config-full --output json", code: 2},
		{name: "schema with an argument", args: "schema postgres", code: 2},
		{name: "audit of what is not there", args: "audit verify --journal /nowhere/journal.jsonl", code: 2},
	}
}

var adminOf = regexp.MustCompile(`postgres://(\w+)@`)

// own makes the credential the administrator's, kept in a folder or nowhere.
func own(folder string) func(string) string {
	return func(text string) string {
		if folder != "" {
			text = swap("admin-password: {from-env: KEYTURN_PG_PASSWORD}", "admin-from: "+folder)(text)
		}
		return regexp.MustCompile(`role: .*`).ReplaceAllString(text, "role: "+adminOf.FindStringSubmatch(text)[1])
	}
}

// section adds to the section of the backend.
func section(lines string) func(string) string {
	return swap("      role:", "      "+lines+"\n      role:")
}

func configurationMistakes() []mistake {
	return []mistake{
		{name: "no configuration", args: "--config /nowhere/keyturn.yml status", code: 2},
		{name: "a directory as configuration", args: "--config / status", code: 2},
		{name: "approve", args: "plan", code: 2, config: line("approve: {environment: production}")},
		{name: "a secret written down", args: "plan", code: 2, config: swap("{from-env: KEYTURN_PG_PASSWORD}", "literal-canary-07aa")},
		{name: "no password variable", args: "adopt shop", code: 2, env: []string{"KEYTURN_PG_PASSWORD="}},
		{name: "no password file", args: "adopt shop", code: 2, config: swap("{from-env: KEYTURN_PG_PASSWORD}", "{from-file: /nowhere/password}")},
		{name: "no authority file", args: "adopt shop", code: 2, config: func(text string) string {
			return regexp.MustCompile(`ca: .*`).ReplaceAllString(text, "ca: /nowhere/ca.pem")
		}},
		{name: "an authority file that is none", args: "adopt shop", code: 2, config: func(text string) string {
			return regexp.MustCompile(`ca: .*`).ReplaceAllString(text, "ca: /etc/hostname")
		}},
		{name: "no authority", args: "adopt shop", code: 4, config: func(text string) string {
			return regexp.MustCompile(`ca: .*`).ReplaceAllString(text, "insecure-tls: []")
		}},
		{name: "pins that are none", args: "plan", code: 2, config: func(text string) string {
			return regexp.MustCompile(`ca: .*`).ReplaceAllString(text, "pins: {current: sha1/x, next: \"\"}")
		}},
		{name: "only the next key is pinned", args: "plan", code: 2, config: func(text string) string {
			return regexp.MustCompile(`ca: .*`).ReplaceAllString(text, "pins: {next: sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}\n      insecure-tls: [plaintext]")
		}},
		{name: "a gap that nobody accepted", args: "plan", code: 2, config: section("strategy: single-role")},
		{name: "logins beside a single role", args: "plan", code: 2, config: section("strategy: single-role\n      logins: [a, b]")},
		{name: "one login", args: "plan", code: 2, config: section("logins: [shop]")},
		{name: "an unknown strategy", args: "plan", code: 2, config: section("strategy: blue-green")},
		{name: "an own administrator without a folder", args: "plan", code: 2, config: own("")},
		{name: "an own administrator in another folder", args: "plan", code: 2, config: own("/var/lib/elsewhere")},
		{name: "an own administrator on a swarm", args: "plan", code: 2, config: func(text string) string {
			return regexp.MustCompile(`directory: .*`).ReplaceAllString(own("/srv/credentials/shop")(text), "swarm: {}")
		}},
		{name: "an administrator in two places", args: "plan", code: 2, config: section("admin-from: /srv/credentials/keyturn-admin")},
		{name: "an administrator whose folder is not there", args: "adopt shop", code: 2, config: swap("admin-password: {from-env: KEYTURN_PG_PASSWORD}", "admin-from: /nowhere/keyturn-admin")},
		{name: "rights that are none", args: "plan", code: 2, config: section("rights: superuser")},
		{name: "createrole that the administrator lacks", args: "prepare shop", code: 3, config: section("rights: createrole")},
		{name: "root is relative", args: "plan", code: 2, config: func(text string) string {
			return regexp.MustCompile(`directory: .*`).ReplaceAllString(text, "directory: {path: credentials}")
		}},
		{name: "root is not there", args: "adopt shop", code: 4, config: func(text string) string {
			return regexp.MustCompile(`directory: .*`).ReplaceAllString(text, "directory: {path: /nowhere/credentials}")
		}},
		{name: "no server there", args: "adopt shop", code: 4, config: func(text string) string {
			return regexp.MustCompile(`@127.0.0.1:\d+/`).ReplaceAllString(text, "@127.0.0.1:1/")
		}},
		{name: "no such database", args: "adopt shop", code: 1, config: func(text string) string {
			return regexp.MustCompile(`(@127.0.0.1:\d+/)\w+`).ReplaceAllString(text, "${1}nowhere")
		}},
		{name: "fingerprint key too short", args: "plan", code: 2, env: []string{"PRINTS=abc"}, config: func(text string) string {
			return "fingerprint-key: {from-env: PRINTS}\n" + text
		}},
		{name: "no fingerprint key", args: "plan", code: 2, config: func(text string) string {
			return "fingerprint-key: {from-env: PRINTS}\n" + text
		}},
		{name: "journal where nobody may write", args: "prepare shop", code: 2, config: func(text string) string {
			return regexp.MustCompile(`journal: .*`).ReplaceAllString(text, "journal: file:/sys/keyturn/journal.jsonl")
		}},
		{name: "journal without a place", args: "status", code: 2, env: []string{"HOME=", "XDG_STATE_HOME="}, config: func(text string) string {
			return regexp.MustCompile(`journal: .*\n`).ReplaceAllString(text, "")
		}},
		{name: "journal in a relative state folder", args: "plan", code: 2, env: []string{"XDG_STATE_HOME=state"}, config: func(text string) string {
			return regexp.MustCompile(`journal: .*\n`).ReplaceAllString(text, "")
		}},
		{name: "journal inside a checkout", args: "status", code: 2, env: []string{"GITHUB_ACTIONS=true"},
			do:   func(s *shop) { s.must(os.MkdirAll(filepath.Join(filepath.Dir(s.journal), ".git"), 0o755)) },
			undo: func(s *shop) { s.must(os.Remove(filepath.Join(filepath.Dir(s.journal), ".git"))) }},
		{name: "journal others may write", args: "status", code: 2,
			do:   func(s *shop) { s.must(os.Chmod(s.journal, 0o666)) },
			undo: func(s *shop) { s.must(os.Chmod(s.journal, 0o600)) }},
	}
}

func adoptionMistakes() []mistake {
	role := func(format string) func(*shop) {
		return func(s *shop) { s.sql(s.name, strings.ReplaceAll(format, "ROLE", s.name)) }
	}
	in := func(s *shop, name string) string { return filepath.Join(s.root, s.name, name) }
	return []mistake{
		{name: "wrong password", args: "adopt shop", code: 1, env: []string{"KEYTURN_PG_PASSWORD=wrong-canary-11ab"}},
		{name: "a superuser", args: "adopt shop", code: 3, do: role("alter role ROLE superuser"), undo: role("alter role ROLE nosuperuser")},
		{name: "a role that creates roles", args: "adopt shop", code: 3, do: role("alter role ROLE createrole"), undo: role("alter role ROLE nocreaterole")},
		{name: "a role that replicates", args: "adopt shop", code: 3, do: role("alter role ROLE replication"), undo: role("alter role ROLE noreplication")},
		{name: "session_user in a policy", args: "adopt shop", code: 3,
			do:   role("create policy mine on ROLE.items using (session_user = 'ROLE')"),
			undo: role("drop policy mine on ROLE.items")},
		{name: "an expired login", args: "adopt shop", code: 3, do: role("alter role ROLE valid until '2020-01-01'"), undo: role("alter role ROLE valid until 'infinity'")},
		{name: "a password that is md5", args: "adopt shop", code: 3,
			do:   role("set password_encryption = 'md5'; alter role ROLE password '" + firstPassword + "'"),
			undo: role("alter role ROLE password '" + firstPassword + "'")},
		{name: "a password that is another", args: "adopt shop", code: 3,
			do:   role("alter role ROLE password 'other'"),
			undo: role("alter role ROLE password '" + firstPassword + "'")},
		{name: "logins of another role", args: "adopt shop", code: 3, config: func(text string) string {
			return regexp.MustCompile(`role: (\w+)`).ReplaceAllString(text, "role: nobody\n      logins: [${1}_a, ${1}_b]")
		}},
		{name: "logins that were never set up", args: "adopt shop", code: 3, config: func(text string) string {
			return regexp.MustCompile(`role: (\w+)`).ReplaceAllString(text, "role: $1\n      logins: [left, right]")
		}},
		{name: "functions that were never set up", args: "adopt shop", code: 1, config: func(text string) string {
			return regexp.MustCompile(`role: (\w+)`).ReplaceAllString(text, "role: $1\n      schema: elsewhere")
		}},
		{name: "functions of another release", args: "adopt shop", code: 3,
			do:   role("create or replace function keyturn.version() returns int language sql immutable as 'select 0'"),
			undo: role("create or replace function keyturn.version() returns int language sql immutable as 'select 3'")},
		{name: "the set-up of the other strategy", args: "adopt shop", code: 3, config: func(text string) string {
			return section("strategy: single-role")(text) + "    accept-gap: true\n"
		}},
		{name: "services log in as another", args: "adopt shop", code: 3,
			do: func(s *shop) {
				s.must(os.Rename(in(s, "initial/username"), in(s, "../username")))
				s.must(os.WriteFile(in(s, "initial/username"), []byte("postgres"), 0o400))
			},
			undo: func(s *shop) { s.must(os.Rename(in(s, "../username"), in(s, "initial/username"))) }},
		{name: "no directory", args: "adopt shop", code: 2,
			do:   func(s *shop) { s.must(os.Rename(in(s, ""), filepath.Join(s.root, "away"))) },
			undo: func(s *shop) { s.must(os.Rename(filepath.Join(s.root, "away"), in(s, ""))) }},
		{name: "a field is missing", args: "adopt shop", code: 2,
			do:   func(s *shop) { s.must(os.Rename(in(s, "initial/password"), in(s, "../password"))) },
			undo: func(s *shop) { s.must(os.Rename(in(s, "../password"), in(s, "initial/password"))) }},
		{name: "a directory that others may write to", args: "adopt shop", code: 3,
			do:   func(s *shop) { s.must(os.Chmod(s.root, 0o777)) },
			undo: func(s *shop) { s.must(os.Chmod(s.root, 0o755)) }},
		{name: "validate before adopt", args: "validate shop", code: 3},
		{name: "cutover before adopt", args: "cutover shop", code: 3},
		{name: "rollback before adopt", args: "rollback --reason drill shop", code: 3},
	}
}

func adoptedMistakes() []mistake {
	return []mistake{
		{name: "adopted twice", args: "adopt shop", code: 3},
		{name: "tried to adopt twice", args: "adopt --dry-run shop", code: 3},
		{name: "rollback of nothing tried", args: "rollback --dry-run shop", code: 3, noHint: true},
		{name: "rollback of nothing", args: "rollback --reason drill shop", code: 3},
		{name: "foreign pending version", args: "prepare shop", code: 3,
			do:   func(s *shop) { s.must(os.Mkdir(filepath.Join(s.root, s.name, "v2"), 0o755)) },
			undo: func(s *shop) { s.must(os.Remove(filepath.Join(s.root, s.name, "v2"))) }},
		{name: "the link is gone", args: "prepare shop", code: 3,
			do:   func(s *shop) { s.must(os.Remove(filepath.Join(s.root, s.name, "current"))) },
			undo: func(s *shop) { s.point("initial") }},
		{name: "the link leads elsewhere", args: "prepare shop", code: 3,
			do: func(s *shop) {
				s.must(os.Mkdir(filepath.Join(s.root, s.name, "mine"), 0o755))
				s.point("mine")
			},
			undo: func(s *shop) {
				s.point("initial")
				s.must(os.Remove(filepath.Join(s.root, s.name, "mine")))
			}},
		{name: "no such restart command", args: "prepare shop", code: 2, config: line("restart: [/nowhere/restart]")},
		{name: "a login somebody armed", args: "prepare shop", code: 3,
			do: func(s *shop) {
				s.sql("postgres", fmt.Sprintf("alter role %[1]s_a login; alter role %[1]s_b login", s.name))
			},
			undo: func(s *shop) {
				s.sql("postgres", fmt.Sprintf("alter role %[1]s_a nologin; alter role %[1]s_b nologin", s.name))
			}},
		{name: "a login with more rights", args: "prepare shop", code: 3,
			do:   func(s *shop) { s.sql("postgres", fmt.Sprintf("grant pg_monitor to %s_b", s.name)) },
			undo: func(s *shop) { s.sql("postgres", fmt.Sprintf("revoke pg_monitor from %s_b", s.name)) }},
		{name: "plan says what is in the way", args: "plan shop", code: 3, noHint: true,
			do:   func(s *shop) { s.must(os.Mkdir(filepath.Join(s.root, s.name, "v2"), 0o755)) },
			undo: func(s *shop) { s.must(os.Remove(filepath.Join(s.root, s.name, "v2"))) }},
		{name: "clocks that differ", args: "prepare shop", code: 3, env: []string{hooks.ClockAhead + "=-1h"}},
	}
}

func preparedMistakes() []mistake {
	return []mistake{
		{name: "cutover before validate", args: "cutover shop", code: 3},
		{name: "cleanup before cutover", args: "cleanup shop", code: 3},
		{name: "forced cleanup before cutover", args: "cleanup --force now shop", code: 3},
		{name: "another plan", args: "cutover --plan 0000 shop", code: 3},
		{name: "cutover tried before validate", args: "cutover --dry-run shop", code: 3, noHint: true},
		{name: "out of the configuration", args: "validate orders", code: 2},
	}
}

func overlapMistakes() []mistake {
	return []mistake{
		{name: "cleanup", args: "cleanup shop", code: 3},
		{name: "prepare", args: "prepare shop", code: 3},
		{name: "adopt", args: "adopt shop", code: 3},
	}
}

func retiredMistakes() []mistake {
	return []mistake{
		{name: "rollback", args: "rollback --reason late shop", code: 3},
		{name: "too young", args: "prepare shop", code: 3, config: swap("minimum-age: 0s", "minimum-age: 1h")},
	}
}

func journalMistakes() []mistake {
	var kept []byte
	edit := func(change func(string) string) func(*shop) {
		return func(s *shop) {
			b, err := os.ReadFile(s.journal)
			s.must(err)
			kept = b
			changed := change(string(b))
			if changed == string(b) {
				s.t.Fatal("the journal is not changed")
			}
			s.must(os.WriteFile(s.journal, []byte(changed), 0o600))
		}
	}
	back := func(s *shop) { s.must(os.WriteFile(s.journal, kept, 0o600)) }
	identity := func(text string) string { return strings.Replace(text, `"identity":"`, `"identity":"x`, 1) }
	removed := func(text string) string {
		lines := strings.SplitAfter(text, "\n")
		return strings.Join(append(lines[:2:2], lines[3:]...), "")
	}
	return []mistake{
		{name: "edited", args: "prepare shop", code: 5, do: edit(identity), undo: back},
		{name: "edited and verified", args: "audit verify", code: 5, do: edit(identity), undo: back},
		{name: "an entry removed", args: "rotate shop", code: 5, do: edit(removed), undo: back},
		{name: "empty and verified", args: "audit verify", code: 5, do: edit(func(string) string { return "" }), undo: back},
		{name: "zeros and verified", args: "audit verify", code: 5, do: edit(func(string) string { return strings.Repeat("\x00", 4096) }), undo: back},
		{name: "not a journal", args: "status", code: 5, do: edit(func(string) string { return "hello\nworld\n" }), undo: back},
		{name: "entries in another order", args: "status", code: 5, do: edit(func(text string) string {
			lines := strings.SplitAfter(text, "\n")
			lines[1], lines[2] = lines[2], lines[1]
			return strings.Join(lines, "")
		}), undo: back},
		{name: "begun anew", args: "rotate shop", code: 3, // the adoption is forgotten
			do: edit(func(text string) string { return strings.SplitAfter(text, "\n")[0] }), undo: back},
	}
}

func certificateMistakes() []mistake {
	shows := func(c testserver.Certificate) func(*shop) { return func(s *shop) { s.must(s.pg.SetCertificate(c)) } }
	return []mistake{
		{name: "expired", args: "adopt shop", code: 4, do: shows(testserver.Certificate{NotAfter: time.Now().Add(-time.Hour)})},
		{name: "of another name", args: "adopt shop", code: 4, do: shows(testserver.Certificate{Names: []string{"db.example"}}),
			undo: shows(testserver.Certificate{Names: []string{"127.0.0.1"}})},
		{name: "of another authority", args: "adopt shop", code: 4, config: func(text string) string {
			other, err := testserver.NewAuthority()
			if err != nil {
				panic(err)
			}
			file := filepath.Join(os.TempDir(), fmt.Sprintf("keyturn-test-authority-%d.pem", os.Getpid()))
			if err := os.WriteFile(file, other.PEM, 0o600); err != nil {
				panic(err)
			}
			return regexp.MustCompile(`ca: .*`).ReplaceAllString(text, "ca: "+file)
		}, undo: func(s *shop) {
			s.must(os.Remove(filepath.Join(os.TempDir(), fmt.Sprintf("keyturn-test-authority-%d.pem", os.Getpid()))))
		}},
	}
}
