package testserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// poolerUser is who PgBouncer asks the server as.
const poolerUser = "pooler"

// authQuery is the function that PgBouncer asks, as its documentation wants one:
// who may not log in, or not any more, has no row.
const authQuery = `
create schema pooler authorization postgres;
create function pooler.get_auth(name text) returns table (username text, password text)
language sql security definer set search_path = pg_catalog, pg_temp as $$
  select rolname::text, rolpassword from pg_authid
  where rolname = name and rolcanlogin and not rolsuper and (rolvaliduntil is null or rolvaliduntil > now()) $$;
revoke all on function pooler.get_auth(text) from public;
grant usage on schema pooler to pooler;
grant execute on function pooler.get_auth(text) to pooler`

// A PgBouncer is Debian's PgBouncer in front of a server, in transaction pooling. It
// speaks TLS on both sides, and knows passwords by an auth_query.
type PgBouncer struct {
	pg      *Postgres
	port    int
	log     string
	process *process
}

// NewPgBouncer starts a pooler in front of a database of a server, for as long as
// the test runs. Settings are lines of its section [pgbouncer].
func NewPgBouncer(t testing.TB, pg *Postgres, database string, settings ...string) *PgBouncer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	p := &PgBouncer{pg: pg}
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		Require(t, fmt.Errorf("no pgbouncer on the PATH, run .ci/install: %w", ErrMissing))
	}
	password := randomText()
	err = pg.Exec(ctx, "postgres", fmt.Sprintf("create role %s login password '%s'", poolerUser, password))
	Require(t, errors.Join(err, pg.Exec(ctx, database, authQuery)))
	p.port, err = freePort("tcp", "127.0.0.1")
	Require(t, err)
	name := "pgbouncer-" + database
	p.log = pg.path(name + ".log")
	ini := append([]string{"[databases]", fmt.Sprintf("%s = host=127.0.0.1 port=%d auth_user=%s", database, pg.port, poolerUser), "[pgbouncer]",
		"listen_addr = 127.0.0.1", "listen_port = " + strconv.Itoa(p.port), "unix_socket_dir =", "auth_type = scram-sha-256",
		"auth_file = " + pg.path(name+".users"), "auth_query = SELECT username, password FROM pooler.get_auth($1)", "admin_users = " + poolerUser,
		"pool_mode = transaction", "default_pool_size = 10", "max_client_conn = 200", "verbose = 2",
		"server_tls_sslmode = verify-full", "server_tls_ca_file = " + pg.CAFile(),
		"client_tls_sslmode = require", "client_tls_cert_file = " + pg.path("server.pem"), "client_tls_key_file = " + pg.path("server.key")}, settings...)
	Require(t, errors.Join(
		pg.writeFile(name+".users", []byte(fmt.Sprintf("%q %q\n", poolerUser, password)), 0o600),
		pg.writeFile(name+".ini", []byte(strings.Join(ini, "\n")+"\n"), 0o600)))
	cmd := exec.Command(program, pg.path(name+".ini"))
	cmd.Dir, cmd.Env = pg.dir, environment(pg.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: pg.owner}
	p.process, err = startProcess(cmd, p.log)
	Require(t, err)
	t.Cleanup(func() {
		p.process.kill()
		<-p.process.done
	})
	for {
		conn, err := net.Dial("tcp", p.Addr())
		if err == nil {
			_ = conn.Close()
			return p
		}
		select {
		case <-p.process.done:
			t.Fatalf("PgBouncer ended: %v", p.process.err)
		case <-ctx.Done():
			t.Fatalf("PgBouncer does not answer: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Addr is host and port of the pooler.
func (p *PgBouncer) Addr() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// LogFile is the path of its log.
func (p *PgBouncer) LogFile() string { return p.log }
