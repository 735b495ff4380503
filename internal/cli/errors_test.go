package cli_test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/testserver"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// A mistake is one that people make: keyturn must say what is wrong and what to
// do, end with the right code, and change nothing.
type mistake struct {
	name   string
	args   string // shop stands for the credential
	code   int
	config func(text string) string // what is wrong with the configuration
	env    []string                 // what is wrong with the environment
	do     func(s *shop)            // what is wrong elsewhere
	undo   func(s *shop)
	noHint bool // there is nothing to add to what is said
}

// A scene is a state in which mistakes are made. They share it: none of them
// may change anything.
type scene struct {
	name     string
	set      func(s *shop) // nil: nothing is adopted yet
	mistakes []mistake
	alone    bool // with a server of its own
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	count := 0
	for _, sc := range scenes() {
		count += len(sc.mistakes)
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			pg := servers.postgres.Get(t)
			if sc.alone {
				pg = testserver.NewPostgres(t, testserver.PostgresOptions{})
			}
			s := newShop(t, pg, "overlap: 1h", quick)
			if sc.set != nil {
				sc.set(s)
			} else {
				s.ok("cleanup", s.name) // makes the journal, and nothing else
			}
			for _, m := range sc.mistakes {
				t.Run(m.name, func(t *testing.T) { s.at(t).make(m, sc.name) })
			}
		})
	}
	if count < 50 {
		t.Errorf("%d mistakes are tried, want at least 50", count)
	}
	for _, file := range golden(t) {
		if !slices.ContainsFunc(scenes(), func(sc scene) bool {
			return slices.ContainsFunc(sc.mistakes, func(m mistake) bool { return goldenFile(sc.name, m.name) == file })
		}) {
			t.Errorf("%s belongs to no mistake", file)
		}
	}
}

func golden(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/errors/*.txt")
	check(t, err)
	return files
}

func goldenFile(scene, name string) string {
	return filepath.Join("testdata", "errors", scene+"-"+strings.ReplaceAll(name, " ", "-")+".txt")
}

// at returns the shop for a subtest.
func (s *shop) at(t *testing.T) *shop {
	copied := *s
	copied.t = t
	return &copied
}

func (s *shop) make(m mistake, scene string) {
	t := s.t
	t.Helper()
	if m.config != nil {
		text, err := os.ReadFile(s.config)
		s.must(err)
		wrong := m.config(string(text))
		if wrong == string(text) {
			t.Fatal("the configuration is not changed")
		}
		s.config = filepath.Join(t.TempDir(), "keyturn.yml")
		s.must(os.WriteFile(s.config, []byte(wrong), 0o600))
	}
	if m.undo != nil {
		defer m.undo(s)
	}
	if m.do != nil {
		m.do(s)
	}
	before := s.everything()
	args := strings.Fields(m.args)
	for i := range args {
		args[i] = strings.NewReplacer("shop", s.name, `\t`, "\t").Replace(args[i])
	}
	r := s.runWith(m.env, args...)
	if diff := cmp.Diff(before, s.everything()); diff != "" {
		t.Errorf("something was changed (-before +after):\n%s", diff)
	}
	if r.code != m.code {
		t.Errorf("exit %d, want %d", r.code, m.code)
	}
	if !m.noHint && !strings.Contains(r.stderr, "hint: ") {
		t.Error("there is no hint")
	}
	said := regexp.MustCompile(` {3,}`).ReplaceAllString(s.normal(r.stdout), "   ") + s.normal(r.stderr)
	got := fmt.Sprintf("$ keyturn %s\n%sexit %d\n", m.args, said, r.code)
	file := goldenFile(scene, m.name)
	if *update {
		s.must(os.MkdirAll(filepath.Dir(file), 0o755))
		s.must(os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	s.must(err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// everything is what a mistake may not change: the roles, the credential's
// directory, and the journal but for its leases.
func (s *shop) everything() []string {
	s.t.Helper()
	var all []string
	journal, _ := os.ReadFile(s.journal) // none is fine
	lease := regexp.MustCompile(`"step":"(lease|release)"`)
	for line := range strings.Lines(string(journal)) {
		if !lease.MatchString(line) {
			line = regexp.MustCompile(`"(prev|hash|seq)":("[0-9a-f]*"|\d+),?`).ReplaceAllString(line, "")
			all = append(all, line)
		}
	}
	s.must(filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		to, _ := os.Readlink(path) // "" of what is no link
		all = append(all, fmt.Sprint(path, to, info.Mode(), info.ModTime()))
		return nil
	}))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	// By the private socket: the certificate may be what is wrong.
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=postgres",
		filepath.Join(s.pg.Dir(), "sock"), s.pg.Port(), testserver.AdminUser, s.pg.AdminPassword()))
	s.must(err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `select a::text || coalesce(shobj_description(oid, 'pg_authid'), '') from pg_authid a
		where rolname = $1 or rolname like $1 || '\_%' order by rolname`, s.name)
	s.must(err)
	defer rows.Close()
	for rows.Next() {
		var role string
		s.must(rows.Scan(&role))
		all = append(all, role)
	}
	s.must(rows.Err())
	return all
}

// normal replaces what differs from run to run.
func (s *shop) normal(text string) string {
	journal, err := filepath.EvalSymlinks(filepath.Dir(s.journal))
	if err != nil {
		journal = filepath.Dir(s.journal)
	}
	text = strings.NewReplacer(s.config, "keyturn.yml", journal, "/var/lib/keyturn", s.root, "/srv/credentials",
		s.pg.CAFile(), "/etc/ssl/db.pem", s.pg.Addr(), "db:5432", s.name, "shop").Replace(text)
	for _, r := range [][2]string{
		{`01[0-9A-HJKMNP-TV-Z]{24}`, "RUN"},
		{`\b[0-9a-f]{64}\b`, "HASH"},
		{`\b20\d\d-\d\d-\d\dT[0-9:.]+Z`, "TIME"},
		{`\b[A-Z][a-z]{2} 20\d\d-\d\d-\d\d \d\d:\d\d UTC`, "WHEN"},
		{`\bpid \d+`, "pid PID"},
		{`  \d+\.\d s`, ""},
		{`in \d+\.\d s`, "in SECONDS"},
		{`took [\d.]+m?s:`, "took SECONDS:"},
		{`\bhost ".*?"`, `host "HOST"`},
		{`on [^ ]+, since`, "on HOST, since"},
		{regexp.QuoteMeta(filepath.Dir(os.TempDir())) + `/[^" ]*/`, "/tmp/"},
		{`current time \S+`, "current time NOW"},
		{`is \d+s old`, "is SECONDS old"},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}

// swap returns what replaces a text in a configuration; $s stands for the shop.
func swap(old, fresh string) func(string) string {
	return func(text string) string { return strings.Replace(text, old, fresh, 1) }
}

// line returns what adds a line to the credential.
func line(l string) func(string) string {
	return func(text string) string { return text + "    " + l + "\n" }
}
