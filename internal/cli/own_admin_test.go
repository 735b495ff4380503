package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ownAdmin returns the administrator of a shop as a credential of its own, with a
// configuration, a journal and a folder of its own; the shop's configuration reads
// its login from there.
func (s *shop) ownAdmin() *shop {
	s.t.Helper()
	a := *s
	dir := filepath.Dir(s.config)
	a.name, a.root = "keyturn-admin", filepath.Join(dir, "admin")
	a.config, a.journal = filepath.Join(dir, "admin.yml"), filepath.Join(dir, "admin-state", "journal.jsonl")
	home := filepath.Join(a.root, a.name, "initial")
	s.must(os.MkdirAll(home, 0o755))
	for field, value := range map[string]string{"username": "keyturn_" + s.name, "password": adminPassword, "host": "127.0.0.1",
		"port": fmt.Sprint(s.pg.Port()), "database": s.name} {
		s.must(os.WriteFile(filepath.Join(home, field), []byte(value), 0o400))
	}
	s.must(os.Symlink("initial", filepath.Join(a.root, a.name, "current")))
	from := "admin-from: " + filepath.Join(a.root, a.name)
	s.must(os.WriteFile(a.config, []byte(fmt.Sprintf(`version: 1
journal: file:%s
directory: {path: %s}
credentials:
  keyturn-admin:
    postgres:
      admin: postgres://keyturn_%s@%s/%s
      %s
      ca: %s
      role: keyturn_%s
    services:
      keyturn: {path: {/run/keyturn/password: password, /run/keyturn/username: username}}
    minimum-age: 0s
    overlap: 1s
`, a.journal, a.root, s.name, s.pg.Addr(), s.name, from, s.pg.CAFile(), s.name)), 0o600))
	b, err := os.ReadFile(s.config)
	s.must(err)
	s.must(os.WriteFile(s.config, []byte(strings.Replace(string(b), "admin-password: {from-env: KEYTURN_PG_PASSWORD}", from, 1)), 0o600))
	a.env = append(s.env[:len(s.env):len(s.env)], "KEYTURN_PG_PASSWORD=")
	s.env = a.env
	sql := a.ok("setup", "postgres")
	setting.Lock()
	defer setting.Unlock()
	s.sql(s.name, sql)
	return &a
}

// TestOwnAdministrator rotates the administrator itself, twice, by its own logins,
// between rotations of what it administers; its first password is dead then.
func TestOwnAdministrator(t *testing.T) {
	t.Parallel()
	s := newShop(t, servers.postgres.Get(t))
	a := s.ownAdmin()
	s.ok("adopt", s.name)
	a.ok("adopt", a.name)
	for current := 2; current <= 3; current++ {
		s.ok("rotate", "--wait", s.name)
		a.ok("rotate", "--wait", a.name)
		a.versions(current)
		s.finished(current)
	}
	a.administers()
	a.ok("audit", "verify")
	a.ok("prepare", a.name)
	a.ok("validate", a.name)
	a.ok("cutover", a.name)
	a.ok("rollback", "--reason", "drill", a.name)
	a.administers()
	s.ok("rotate", "--wait", s.name)
	b, err := os.ReadFile(a.journal)
	s.must(err)
	a.clean(string(b))
}

// administers checks that one login of the administrator can log in, that it is the
// one in the folder, and that the one which it had at first is dead three ways.
func (s *shop) administers() {
	s.t.Helper()
	user, err := os.ReadFile(filepath.Join(s.root, s.name, "current", "username"))
	s.must(err)
	role := string(user[:strings.LastIndex(string(user), "_")])
	var can, dead string
	s.must(s.pgScan(fmt.Sprintf(`select
		string_agg(rolname, ' ') filter (where rolcanlogin and rolpassword is not null and (rolvaliduntil is null or rolvaliduntil > now())),
		coalesce(string_agg(rolname, ' ') filter (where rolname = '%[1]s' and not rolcanlogin and rolpassword is null and rolvaliduntil = '-infinity'), '')
		from pg_authid where rolname = '%[1]s' or rolname like '%[1]s\_%%'`, role), &can, &dead))
	if can != string(user) || dead != role {
		s.t.Errorf("can log in: %s, want %s; dead: %q, want %s", can, user, dead, role)
	}
}

// TestCrashOwnAdministrator kills a rotation of the administrator: whoever goes on
// can log in, and brings it to its end.
func TestCrashOwnAdministrator(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"after effect: prepare arm", "before effect: cutover move", "after effect: cutover move",
		"after effect: cleanup end", "after effect: cleanup remove"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, servers.postgres.Get(t))
			a := s.ownAdmin()
			a.ok("adopt", a.name)
			a.killed(point, "rotate", "--wait", a.name)
			s.ok("adopt", s.name) // it is an administrator at any time
			a.goOn()
			a.versions(a.status().Current)
			a.administers()
			s.ok("rotate", "--wait", s.name)
		})
	}
}
