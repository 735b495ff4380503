package testserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// AdminUser is the superuser of every [Postgres].
const AdminUser = "postgres"

// PostgresOptions say how a server is started. The zero value is a usable
// primary.
type PostgresOptions struct {
	// ListenAddresses are addresses beside 127.0.0.1, such as
	// [Engine.GatewayIP]. They stand in the certificate.
	ListenAddresses []string
	// Names are further names for the certificate.
	Names []string
	// Settings are set beside ours, and before them where they are the same.
	Settings map[string]string
	// Certificate, if it is not nil, replaces the certificate that the server
	// would get: an expired one, one for another name.
	Certificate *Certificate
	// Netns is the network namespace that the server listens in, on all of its
	// addresses; "" is ours. Only what is in there reaches it, by a name of Names.
	Netns string
	// Release is the release of PostgreSQL, one of those that tools/postgres names;
	// "" is the machine's own. It has no psql and no pg_basebackup.
	Release string
	// StartTimeout bounds the start; zero means 60 seconds.
	StartTimeout time.Duration
}

// A Postgres is a PostgreSQL server of our own. It speaks TLS 1.3 only, asks
// for SCRAM-SHA-256, and listens on loopback. Its methods are for one goroutine
// at a time.
type Postgres struct {
	opts      PostgresOptions
	bin       string // folder of the server's programs
	version   string
	owner     *syscall.Credential // nil when we run as ourselves
	dir       string
	port      int
	password  string
	authority *Authority
	primary   *Postgres // of a standby
	process   *process
	guard     *guard
	remove    sync.Once
	removeErr error
}

// StartPostgres starts a server with an empty cluster. If PostgreSQL is not
// installed the error wraps [ErrMissing]. The caller calls [Postgres.Remove].
func StartPostgres(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	authority, err := NewAuthority()
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	p := &Postgres{opts: opts, authority: authority}
	if err := p.bringUp(ctx, p.fillPrimary); err != nil {
		return nil, err
	}
	return p, nil
}

// NewPostgres starts a server that is removed at the end of the test.
func NewPostgres(t testing.TB, opts PostgresOptions) *Postgres {
	t.Helper()
	p, err := StartPostgres(context.Background(), opts)
	Require(t, err)
	t.Cleanup(func() {
		if err := p.Remove(); err != nil {
			t.Errorf("removing PostgreSQL: %v", err)
		}
	})
	return p
}

// bringUp makes the folder, fills it, and starts the server; what fails is removed.
func (p *Postgres) bringUp(ctx context.Context, fill func(context.Context) error) error {
	reap()
	if p.opts.StartTimeout == 0 {
		p.opts.StartTimeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.StartTimeout)
	defer cancel()
	if err := p.prepare(ctx); err != nil {
		return errors.Join(fmt.Errorf("starting PostgreSQL: %w", err), p.Remove())
	}
	if err := fill(ctx); err != nil {
		return errors.Join(fmt.Errorf("starting PostgreSQL: %w", err), p.Remove())
	}
	return nil
}

// prepare finds the programs and makes everything but the data.
func (p *Postgres) prepare(ctx context.Context) error {
	var err error
	if p.owner, err = serverUser(); err != nil {
		return err
	}
	if p.dir, err = tempDir("postgres"); err != nil {
		return err
	}
	if p.guard, err = startGuard("postgres", p.dir); err != nil {
		return err
	}
	if p.opts.Release != "" {
		err = p.installRelease(ctx)
	} else {
		p.bin, p.version, err = findPostgres()
	}
	if err != nil {
		return err
	}
	if p.port, err = freePort("tcp", append([]string{"127.0.0.1"}, p.opts.ListenAddresses...)...); err != nil {
		return err
	}
	for _, dir := range []string{"data", "sock"} {
		if err := p.mkdir(dir); err != nil {
			return err
		}
	}
	if err := p.writeCertificate(); err != nil {
		return err
	}
	if err := p.writeConf(); err != nil {
		return err
	}
	return p.writeHBA("local all all scram-sha-256\n" + DefaultHBA)
}

// fillPrimary copies an empty cluster, starts it, and gives the superuser a
// random password while only the private socket is open.
func (p *Postgres) fillPrimary(ctx context.Context) error {
	template, err := clusterTemplate(ctx, p.bin, p.version, p.owner)
	if err != nil {
		return err
	}
	if err := p.copyCluster(template); err != nil {
		return err
	}
	p.password = randomText()
	if err := p.writeHBA("local all all trust\n"); err != nil {
		return err
	}
	if err := p.Start(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", p.path("sock"), p.port, AdminUser))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	sql := "SET log_statement = 'none'; SET log_min_duration_statement = -1; ALTER ROLE " + AdminUser + " PASSWORD '" + p.password + "'"
	if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	return p.SetHBA("local all all scram-sha-256\n" + DefaultHBA)
}

// Start starts the server after a Stop, on its old port.
func (p *Postgres) Start(ctx context.Context) error {
	if p.process != nil && p.process.running() {
		return nil
	}
	cmd := exec.Command(filepath.Join(p.bin, "postgres"),
		"-D", p.path("data"), "-c", "config_file="+p.path("postgresql.conf"), "-c", "hba_file="+p.path("pg_hba.conf"))
	cmd.Dir, cmd.Env = p.dir, environment(p.dir)
	// An immediate shutdown leaves no shared memory behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner, Pdeathsig: syscall.SIGQUIT}
	if p.opts.Netns != "" {
		within(cmd, p.opts.Netns)
	}
	process, err := startProcess(cmd, p.LogFile())
	if err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	p.process = process
	if err := p.waitReady(ctx); err != nil {
		return fmt.Errorf("starting PostgreSQL: %w; its log: %s", err, p.tail())
	}
	return nil
}

// waitReady waits until the server takes connections, which it says in the
// status line of its lock file.
func (p *Postgres) waitReady(ctx context.Context) error {
	for {
		if lines := p.lockFile(); len(lines) > 7 && lines[0] == strconv.Itoa(p.process.pid()) && lines[7] == "ready" {
			return nil
		}
		select {
		case <-p.process.done:
			return fmt.Errorf("the server ended: %w", p.process.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop ends the server at once (a fast shutdown) and waits for it. Its data stays.
func (p *Postgres) Stop(ctx context.Context) error { return p.end(ctx, syscall.SIGINT) }

// Crash ends the server as a loss of power would, as far as clients can tell:
// no connection is said goodbye to. Start recovers it.
func (p *Postgres) Crash(ctx context.Context) error { return p.end(ctx, syscall.SIGQUIT) }

// end sends the signal and waits.
func (p *Postgres) end(ctx context.Context, s syscall.Signal) error {
	if p.process == nil || !p.process.running() {
		return nil
	}
	if err := p.process.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("stopping PostgreSQL: %w", err)
	}
	select {
	case <-p.process.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping PostgreSQL: %w", ctx.Err())
	}
}

// Restart is Stop and Start.
func (p *Postgres) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Remove ends the server and removes everything of it. It may be called again,
// and also while the server is paused.
func (p *Postgres) Remove() error {
	p.remove.Do(func() {
		if p.guard != nil {
			p.removeErr = p.guard.close()
		} else if p.dir != "" {
			p.removeErr = os.RemoveAll(p.dir)
		}
		if p.process != nil {
			p.process.kill() // the guard has ended it, unless it never got to its lock file
		}
		if p.removeErr != nil {
			p.removeErr = fmt.Errorf("removing PostgreSQL: %w", p.removeErr)
		}
	})
	return p.removeErr
}

// Addr is host and port of the server, as its clients reach it.
func (p *Postgres) Addr() string {
	host := "127.0.0.1"
	if p.opts.Netns != "" {
		host = p.opts.Names[0]
	}
	return host + ":" + strconv.Itoa(p.port)
}

// Port is the port of the server, the same for its whole life.
func (p *Postgres) Port() int { return p.port }

// CAFile is the path of the certificate authority's certificate, for
// sslrootcert. Every user of the machine may read it.
func (p *Postgres) CAFile() string { return p.path("ca.pem") }

// Authority is what signed the server's certificate.
func (p *Postgres) Authority() *Authority { return p.authority }

// AdminPassword is the superuser's password, made at random.
func (p *Postgres) AdminPassword() string { return p.password }

// Dir is the server's folder. It goes away with the server.
func (p *Postgres) Dir() string { return p.dir }

// URL returns a connection URL with verify-full and the authority's
// certificate. An empty password leaves it out.
func (p *Postgres) URL(user, password, database string) string {
	u := url.URL{Scheme: "postgres", Host: p.Addr(), Path: "/" + database, User: url.User(user)}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {p.CAFile()}}.Encode()
	return u.String()
}

// AdminURL is the URL of the superuser, in the database postgres.
func (p *Postgres) AdminURL() string { return p.URL(AdminUser, p.password, "postgres") }

// LogFile is the path of the server's log, LogText what stands in it.
func (p *Postgres) LogFile() string { return p.path("postgres.log") }

// LogText returns what the server has logged since it was made.
func (p *Postgres) LogText() (string, error) {
	data, err := os.ReadFile(p.LogFile())
	if err != nil {
		return "", fmt.Errorf("reading PostgreSQL's log: %w", err)
	}
	return string(data), nil
}

func (p *Postgres) path(name string) string { return filepath.Join(p.dir, name) }
