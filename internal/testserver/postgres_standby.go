package testserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/testserver/child"
)

// StartStandby starts a streaming standby of the server: the same roles and
// passwords, read-only, on a port of its own, with a certificate of the same
// authority. The caller calls Remove on it before the primary's.
func (p *Postgres) StartStandby(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	s := &Postgres{opts: opts, authority: p.authority, primary: p, password: p.password}
	if err := s.bringUp(ctx, s.fillStandby); err != nil {
		return nil, fmt.Errorf("starting a standby: %w", err)
	}
	return s, nil
}

// Promote makes a standby the primary, as somebody does who fails over.
func (p *Postgres) Promote(ctx context.Context) error {
	if p.primary == nil {
		return errors.New("promoting: this server is a primary")
	}
	promoted := false
	if err := p.scan(ctx, "select pg_promote(true, 60)", &promoted); err != nil {
		return fmt.Errorf("promoting: %w", err)
	}
	if !promoted {
		return errors.New("promoting: still a standby after a minute")
	}
	p.primary = nil
	return nil
}

// CutOff ends a standby's stream: what the primary writes from now on is lost to it.
func (p *Postgres) CutOff(ctx context.Context) error {
	if err := p.Exec(ctx, "postgres", "alter system set primary_conninfo = ''", "select pg_reload_conf()"); err != nil {
		return fmt.Errorf("cutting the standby off: %w", err)
	}
	for {
		n := 0
		if err := p.scan(ctx, "select count(*) from pg_stat_wal_receiver", &n); err != nil || n == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cutting the standby off: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// fillStandby copies the primary's data and starts.
func (p *Postgres) fillStandby(ctx context.Context) error {
	pass := fmt.Sprintf("127.0.0.1:%d:*:%s:%s\n", p.primary.port, AdminUser, p.password)
	if err := p.writeFile("pgpass", []byte(pass), 0o600); err != nil {
		return err
	}
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=%s passfile=%s sslmode=verify-full sslrootcert=%s",
		p.primary.port, AdminUser, p.path("pgpass"), p.CAFile())
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "pg_basebackup"),
		"-D", p.path("data"), "-d", dsn, "-R", "-X", "stream", "--no-sync", "-c", "fast")
	cmd.Dir, cmd.Env = p.dir, environment(p.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner}
	if out, err := child.CombinedOutput(cmd); err != nil {
		return fmt.Errorf("copying the primary: %w: %s", err, bytes.TrimSpace(out))
	}
	return p.Start(ctx)
}

// Connect opens a connection with verify-full. The password may be empty.
func (p *Postgres) Connect(ctx context.Context, user, password, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(p.URL(user, "", database))
	if err != nil {
		return nil, errors.New("connecting to PostgreSQL: the URL of user " + strconv.Quote(user) + " is not valid")
	}
	config.Password = password
	if p.opts.Netns != "" {
		config.DialFunc = DialIn(p.opts.Netns)
		config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	return conn, nil
}

// WaitCaughtUp waits until a standby has applied all that its primary has
// written by now.
func (p *Postgres) WaitCaughtUp(ctx context.Context) error {
	if p.primary == nil {
		return errors.New("waiting for the standby: this server is a primary")
	}
	var written string
	if err := p.primary.scan(ctx, "SELECT pg_current_wal_lsn()::text", &written); err != nil {
		return fmt.Errorf("waiting for the standby: %w", err)
	}
	for {
		var done bool
		if err := p.scan(ctx, "SELECT coalesce(pg_last_wal_replay_lsn() >= '"+written+"', false)", &done); err != nil {
			return fmt.Errorf("waiting for the standby: %w", err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the standby: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// scan reads one value as the superuser.
func (p *Postgres) scan(ctx context.Context, sql string, into any) error {
	conn, err := p.Connect(ctx, AdminUser, p.password, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return conn.QueryRow(ctx, sql).Scan(into)
}
